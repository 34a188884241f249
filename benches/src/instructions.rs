//! Counts instructions under valgrind, and compares with what is recorded in `instructions.txt`. Times differ from machine to machine and
//! minute to minute; instructions hardly do, so this can fail where a change makes an operation dearer.

use crate::program::{self, HERE};
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// A count may be so much above the recorded one.
const TOLERANCE: f64 = 0.03;

/// The same where io_uring cannot be had, as in most containers: on epoll, whose looks at the clock take up to a fifth more under valgrind.
const ELSEWHERE: f64 = 0.3;

/// How often what is above its bound is counted once more.
const AGAIN: usize = 3;

/// What is counted: so many operations in each batch.
#[derive(Clone)]
struct Batches {
    workload: &'static str,
    size: &'static str,
    each: u64,
    runs: Runs,
}

const fn batches(workload: &'static str, size: &'static str, each: u64) -> Batches {
    Batches { workload, size, each, runs: Runs { short: 3, long: 8 } }
}

/// Two runs of different length are counted, in batches, so that what is between them is the work alone.
#[derive(Clone)]
struct Runs {
    short: u64,
    long: u64,
}

/// Of what is so short that it shows how the times of the batches are sorted.
const MANY: Runs = Runs { short: 30, long: 80 };

#[derive(Clone)]
struct Counted {
    name: &'static str,
    batches: Batches,
    driver: &'static str,
    /// What comes along with the operation, and is not counted with it; so many times.
    less: Option<(Batches, f64)>,
}

/// On io_uring: how often epoll's driver looks at the clock depends on how long its turns take, and so, under valgrind, on the machine.
const fn counted(name: &'static str, batches: Batches) -> Counted {
    Counted { name, batches, driver: "io_uring", less: None }
}

const COUNTED: &[Counted] = &[
    counted("spawn-and-join", Batches { runs: MANY, ..batches("spawn", "1000", 1_000) }),
    counted("turn", batches("turn", "100", 100_000)),
    counted("channel-round-trip", batches("channel", "1", 10_000)),
    // Each of the two polled with a waker of a combinator, not that of the task.
    counted("channel-combined", batches("channel-combined", "1", 10_000)),
    counted("deadline-ready", batches("deadline-ready", "1", 10_000)),
    // A turn within the deadline, and one without: none of them counts.
    Counted {
        less: Some((batches("nested", "0", 10_000), 2.0)),
        ..counted("deadline-set-and-removed", batches("deadline-waits", "1", 10_000))
    },
    // Both ends, so two reads and two writes.
    Counted { driver: "epoll", ..counted("echo-turn-epoll", batches("echo-turn", "64", 1_000)) },
    counted("echo-turn-io_uring", batches("echo-turn", "64", 1_000)),
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
    let recorded = fs::read_to_string(&file)?;
    let mut text = String::from(
        "# Instructions of one operation, by `cargo run --release -p trefoil-bench -- --instructions --record`.\n",
    );
    let mut holds = true;
    for counted in COUNTED {
        let name = counted.name;
        let bound = recorded.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let mut counted = counted.clone();
        let mut tolerance = TOLERANCE;
        let mut count = match counted.count(&program, 1) {
            Err(error) if counted.driver == "io_uring" && error.to_string().contains("cannot be had") => {
                if record {
                    return Err(
                        format!("{name} cannot be recorded: io_uring cannot be had, here or under valgrind").into()
                    );
                }
                if name.ends_with("io_uring") {
                    println!("{name:24} PASSED OVER: io_uring cannot be had, here or under valgrind");
                    continue;
                }
                (counted.driver, tolerance) = ("epoll", ELSEWHERE);
                print!("io_uring cannot be had, so on epoll: ");
                counted.count(&program, 1)?
            }
            count => count?,
        };
        text.push_str(&format!("{name} {count:.1}\n"));
        if record {
            println!("{name:24} {count:7.1} instructions");
            continue;
        }
        let bound: f64 = bound.ok_or_else(|| format!("{file} does not name {name}"))?.parse()?;
        if count > bound * (1.0 + tolerance) {
            count = counted.count(&program, AGAIN)?;
        }
        let ok = count <= bound * (1.0 + tolerance);
        let percent = (count / bound - 1.0) * 100.0;
        println!(
            "{name:24} {count:7.1} instructions, {percent:+5.1} % of {bound:.1}{}",
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

impl Counted {
    /// Instructions of one of it, each process counted so many times.
    fn count(&self, program: &Path, times: usize) -> Result<f64, Box<dyn Error>> {
        let mut count = one(program, &self.batches, self.driver, times)?;
        if let Some((batches, less)) = &self.less {
            count -= less * one(program, batches, self.driver, times)?;
        }
        Ok(count)
    }
}

/// Instructions of one operation.
fn one(program: &Path, batches: &Batches, driver: &str, times: usize) -> Result<f64, Box<dyn Error>> {
    let Runs { short, long } = batches.runs;
    let more = least(program, batches, driver, long, times)? - least(program, batches, driver, short, times)?;
    Ok(more as f64 / ((long - short) * batches.each) as f64)
}

/// The least of several counts: a busy machine adds, and never takes away. Where a poll takes long, the watchdog looks who that is.
fn least(program: &Path, batches: &Batches, driver: &str, repeat: u64, times: usize) -> Result<u64, Box<dyn Error>> {
    (1..times).try_fold(count(program, batches, driver, repeat)?, |least, _| {
        Ok(least.min(count(program, batches, driver, repeat)?))
    })
}

/// All instructions of one process.
fn count(program: &Path, batches: &Batches, driver: &str, repeat: u64) -> Result<u64, Box<dyn Error>> {
    let out = program.with_file_name("callgrind.out");
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", &format!("--callgrind-out-file={}", out.display())]);
    valgrind.arg(program).args([batches.workload, "trefoil", "--size", batches.size, "--repeat", &repeat.to_string()]);
    valgrind.env("TREFOIL_DRIVER", driver).stdout(Stdio::null()).stderr(Stdio::piped());
    let output = valgrind.output()?;
    if !output.status.success() {
        return Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into());
    }
    let profile = fs::read_to_string(&out)?;
    let total =
        profile.lines().find_map(|line| line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: ")));
    Ok(total.ok_or("callgrind has counted nothing")?.trim().parse()?)
}
