//! The program that is measured: how it is built, and started.

use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Where this package is.
pub const HERE: &str = env!("CARGO_MANIFEST_DIR");

/// Builds `runtimes/`, with the peers or without; the path of the program.
pub fn build(peers: bool) -> Result<PathBuf, Box<dyn Error>> {
    // Beside what cargo built this with, so that `cargo clean` finds it: target/release/trefoil-bench is this.
    let mut target = env::current_exe()?;
    target.pop();
    target.pop();
    target.push(if peers { "bench" } else { "bench-without-peers" });
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--release", "--locked", "--manifest-path"]);
    cargo.arg(format!("{HERE}/runtimes/Cargo.toml")).arg("--target-dir").arg(&target);
    if !peers {
        cargo.arg("--no-default-features");
    }
    eprintln!("building what is measured{}", if peers { " (with all peers: some minutes, once)" } else { "" });
    if !cargo.status()?.success() {
        return Err("what is to be measured does not build".into());
    }
    target.extend(["release", "trefoil-bench-runtimes"]);
    Ok(target)
}

/// What a process printed: its metrics, or nothing if that runtime has nothing of the kind.
pub fn run(command: &mut Command) -> Result<Option<Vec<(String, f64)>>, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        let last = errors.lines().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
        return Err(format!("{}: {last}", output.status));
    }
    if text.trim() == "none" {
        return Ok(None);
    }
    let metrics: Option<_> = text
        .lines()
        .map(|line| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        })
        .collect();
    metrics.ok_or_else(|| format!("not a metric: {text}")).map(Some)
}
