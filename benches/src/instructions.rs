//! Counts instructions under valgrind, and compares with what is recorded in `instructions.txt`. Times differ from machine to machine and
//! minute to minute; instructions hardly do, so this can fail where a change makes an operation dearer.

use crate::program::{self, HERE};
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// A count may be so much above the recorded one.
const TOLERANCE: f64 = 0.03;

/// What is counted.
struct Counted {
    name: &'static str,
    workload: &'static str,
    size: &'static str,
    /// So many operations in one batch.
    each: u64,
}

/// Two runs of different length are counted, so that what is between them is the work alone.
const SHORT: u64 = 3;
const LONG: u64 = 8;

const COUNTED: &[Counted] = &[
    Counted { name: "spawn-and-join", workload: "spawn", size: "1000", each: 1_000 },
    Counted { name: "turn", workload: "turn", size: "100", each: 100_000 },
    Counted { name: "channel-round-trip", workload: "channel", size: "1", each: 10_000 },
    Counted { name: "deadline-ready", workload: "deadline-ready", size: "1", each: 10_000 },
    // With one turn within the deadline, and one without a deadline.
    Counted { name: "deadline-waits", workload: "deadline-waits", size: "1", each: 10_000 },
];

/// Whether no count is above its bound.
pub fn check(record: bool) -> Result<bool, Box<dyn Error>> {
    let found = Command::new("valgrind").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        println!("PASSED OVER: instructions are not counted, this machine has no valgrind");
        return Ok(true);
    }
    let program = program::build(false)?;
    let file = format!("{HERE}/instructions.txt");
    let recorded = if record { String::new() } else { fs::read_to_string(&file)? };
    let mut text = String::from(
        "# Instructions of one operation, by `cargo run --release -p trefoil-bench -- --instructions --record`.\n",
    );
    let mut holds = true;
    for counted in COUNTED {
        let count = (count(&program, counted, LONG)? - count(&program, counted, SHORT)?) as f64;
        let count = count / ((LONG - SHORT) * counted.each) as f64;
        let name = counted.name;
        text.push_str(&format!("{name} {count:.1}\n"));
        if record {
            println!("{name:20} {count:7.1} instructions");
            continue;
        }
        let line = recorded.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let bound: f64 = line.ok_or_else(|| format!("{file} does not name {name}"))?.parse()?;
        let ok = count <= bound * (1.0 + TOLERANCE);
        let percent = (count / bound - 1.0) * 100.0;
        println!(
            "{name:20} {count:7.1} instructions, {percent:+5.1} % of {bound:.1}{}",
            if ok { "" } else { "  TOO MANY" }
        );
        holds &= ok;
    }
    if record {
        fs::write(&file, text)?;
    } else if !holds {
        println!("If that is meant to be, say why in the commit, and record them: --instructions --record");
    }
    Ok(holds)
}

/// All instructions of one process.
fn count(program: &Path, counted: &Counted, batches: u64) -> Result<u64, Box<dyn Error>> {
    let out = program.with_file_name("callgrind.out");
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", &format!("--callgrind-out-file={}", out.display())]);
    valgrind.arg(program).args([counted.workload, "trefoil", "--size", counted.size, "--repeat", &batches.to_string()]);
    // Valgrind may not know io_uring.
    valgrind.env("TREFOIL_DRIVER", "epoll").stdout(Stdio::null()).stderr(Stdio::piped());
    let output = valgrind.output()?;
    if !output.status.success() {
        return Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into());
    }
    let profile = fs::read_to_string(&out)?;
    let total =
        profile.lines().find_map(|line| line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: ")));
    Ok(total.ok_or("callgrind has counted nothing")?.trim().parse()?)
}
