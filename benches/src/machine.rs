//! What the numbers depend on.

use crate::program::HERE;
use std::fs;
use std::process::Command;

/// By name.
pub fn describe() -> Vec<(String, String)> {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpu.lines().find_map(|line| Some(line.strip_prefix("model name")?.split_once(':')?.1.trim().to_owned()));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let uname = rustix::system::uname();
    let rustc = first_line(Command::new("rustc").arg("--version"));
    let git = first_line(Command::new("git").args(["-C", HERE, "describe", "--always", "--dirty"]));
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("unknown").to_owned();
    let machine = [
        ("machine", format!("{cores} × {}", model.unwrap_or_else(|| "unknown".into()))),
        ("kernel", format!("{} {}", uname.sysname().to_string_lossy(), uname.release().to_string_lossy())),
        ("load average at the end (1 to 2 is this program's own)", load),
        ("compiler", format!("{rustc}; opt-level 3, fat LTO, one codegen unit")),
        ("trefoil", git),
        ("peers", versions().join(", ")),
    ];
    machine.map(|(name, value)| (name.to_owned(), value)).into()
}

pub fn command_line() -> String {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut line = "cargo run --release -p trefoil-bench".to_owned();
    if let Ok(driver) = std::env::var("TREFOIL_DRIVER") {
        line.insert_str(0, &format!("TREFOIL_DRIVER={driver} "));
    }
    if !arguments.is_empty() {
        line.push_str(" -- ");
        line.push_str(&arguments.join(" "));
    }
    line
}

fn first_line(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).lines().next().unwrap_or("unknown").to_owned()
}

/// The versions of the peers that were built.
fn versions() -> Vec<String> {
    const PEERS: &[&str] = &[
        "tokio",
        "tokio-util",
        "async-executor",
        "async-io",
        "async-channel",
        "futures-util",
        "futures-concurrency",
        "moro",
        "monoio",
        "local-sync",
        "compio",
        "glommio",
        "io-uring",
    ];
    let lock = fs::read_to_string(format!("{HERE}/runtimes/Cargo.lock")).unwrap_or_default();
    let mut versions = Vec::new();
    for peer in PEERS {
        let entry = lock.split("[[package]]").filter(|entry| entry.contains(&format!("\nname = \"{peer}\"\n")));
        for version in entry.filter_map(|entry| entry.split("version = \"").nth(1)?.split('"').next()) {
            versions.push(format!("{peer} {version}"));
        }
    }
    versions
}
