//! Records a small kitchen and writes its timeline in three forms:
//!
//! ```text
//! cargo run --example timeline --features inspect -- DIRECTORY
//! ```
//!
//! `timeline.html` is for any browser, `timeline.json` for Perfetto (<https://ui.perfetto.dev>), `timeline.svg` for paper.

use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;
use std::time::Duration;
use trefoil::inspect::Timeline;
use trefoil::sync::Mutex;
use trefoil::{Cancelled, channel, move_on_after, nursery, sleep, sleep_forever};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn main() -> std::io::Result<()> {
    let directory = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| ".".into()));
    let trace = trefoil::run(async {
        let timeline = Timeline::record();
        let (hungry, door) = channel(10);
        let (orders, kitchen) = channel(1);
        let pan = Mutex::new(());
        let (kitchen, pan) = (&kitchen, &pan);
        // They come when they want, on a thread of their own.
        let guests = std::thread::Builder::new().name("guests".into()).spawn(move || {
            for minutes in [9, 5, 7] {
                std::thread::sleep(ms(3));
                if hungry.send_blocking(minutes).is_err() {
                    break;
                }
            }
        });
        let guests = guests.expect("a thread can be had");
        nursery(async |n| -> Result<(), Cancelled> {
            for cook in ["Ada", "Bo"] {
                n.spawn_named(cook, async move {
                    while let Some(minutes) = kitchen.recv().await? {
                        let _pan = pan.lock().await?;
                        sleep(ms(minutes)).await?;
                    }
                    Ok(())
                });
            }
            n.spawn_named("phone", async {
                // Nobody calls.
                move_on_after(ms(18), sleep_forever()).named("one call").await?;
                Ok(())
            });
            n.spawn_named("waiter", async move {
                while let Some(minutes) = door.recv().await? {
                    if orders.send(minutes).await.is_err() {
                        break;
                    }
                }
                Ok(())
            });
            Ok(())
        })
        .named("kitchen")
        .await?;
        guests.join().expect("they have left");
        Ok::<_, Cancelled>(timeline.stop())
    })
    .expect("nobody cancels the kitchen");
    std::fs::write(directory.join("timeline.html"), trace.to_html())?;
    trace.write_json(BufWriter::new(File::create(directory.join("timeline.json"))?))?;
    std::fs::write(directory.join("timeline.svg"), trace.to_svg())
}
