//! Records a small kitchen and writes its timeline in three forms:
//!
//! ```text
//! cargo run --example timeline --features inspect -- DIRECTORY
//! ```
//!
//! `timeline.json` is for Perfetto (<https://ui.perfetto.dev>), `timeline.html` for any browser, `timeline.svg` for a book.

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
        let (orders, kitchen) = channel(1);
        let pan = Mutex::new(());
        let (kitchen, pan) = (&kitchen, &pan);
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
                move_on_after(ms(22), sleep_forever()).named("one call").await?;
                Ok(())
            });
            n.spawn_named("waiter", async move {
                for minutes in [9, 5, 7] {
                    sleep(ms(3)).await?;
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
        Ok::<_, Cancelled>(timeline.stop())
    })
    .expect("nobody cancels the kitchen");
    std::fs::write(directory.join("timeline.json"), trace.to_json().to_string())?;
    std::fs::write(directory.join("timeline.html"), trace.to_html())?;
    std::fs::write(directory.join("timeline.svg"), trace.to_svg())
}
