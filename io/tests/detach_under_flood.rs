//! A stream that is dropped while its peer floods it is closed when the drop returns.
mod common;
use common::*;
use std::io::Write;
use std::time::Duration;

#[test]
fn a_flooded_stream_is_closed_by_its_drop() {
    for_each_driver(|builder| {
        let late = builder.run(async {
            let mut late = 0;
            for round in 0..60u64 {
                let (mut stream, mut other) = pair_with_std().await;
                let flood = std::thread::spawn(move || while other.write_all(&[0; 10_000]).is_ok() {});
                let mut buf = [0; 100];
                for _ in 0..round % 7 {
                    let _ = stream.read(&mut buf).await;
                }
                let _ = trefoil_nursery::move_on_after(Duration::from_micros(round * 3), async {
                    trefoil_nursery::sleep(Duration::from_secs(1)).await.map_err(std::io::Error::from)
                })
                .await;
                let before = descriptors();
                drop(stream);
                if descriptors() >= before {
                    late += 1
                }
                flood.join().unwrap();
            }
            late
        });
        println!("not closed at once: {late}");
        assert_eq!(late, 0);
    });
}
