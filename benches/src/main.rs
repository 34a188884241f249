//! Measures trefoil, its peers, and what the same work costs without any runtime.
//!
//! ```sh
//! cargo run --release -p trefoil-bench                        # everything: half an hour; writes benches/RESULTS.md
//! cargo run --release -p trefoil-bench -- spawn-1k channel    # some of it
//! cargo run --release -p trefoil-bench -- --quick             # a first look
//! cargo run --release -p trefoil-bench -- --instructions      # counts instructions, and compares with benches/instructions.txt
//! ```
//!
//! Each runtime runs each workload in a process of its own, pinned to a core, in turn: A B C A B C …, so that a slow phase of the machine
//! meets all of them. `aims` has the workloads, `runtimes/` does them.

mod aims;
mod instructions;
mod program;
mod report;
mod samples;

use aims::{ROWS, RUNTIMES, Row};
use indicatif::{ProgressBar, ProgressStyle};
use lexopt::{Arg, Parser, ValueExt};
use report::Measured;
use samples::Samples;
use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const HELP: &str = "\
usage: cargo run --release -p trefoil-bench -- [workload..] [options]
  --quick             3 short rounds instead of 7, and no RESULTS.md
  --rounds N          so many rounds
  --only RUNTIMES     by comma, e.g. trefoil,tokio,floor
  --core N            pinned to that core; the last one by default. Two threads: that one and the one before
  --json FILE         all samples
  --results FILE      the table as Markdown; benches/RESULTS.md where all is measured
  --list              the workloads
  --instructions      counts instructions under valgrind, and fails where there are more than recorded
  --record            with --instructions: records them";

#[derive(Debug, Default)]
struct Options {
    rows: Vec<&'static Row>,
    runtimes: Vec<&'static str>,
    quick: bool,
    rounds: Option<usize>,
    core: Option<usize>,
    json: Option<PathBuf>,
    results: Option<PathBuf>,
    instructions: bool,
    record: bool,
}

fn main() -> ExitCode {
    let run = || -> Result<bool, Box<dyn Error>> {
        let Some(options) = arguments()? else {
            return Ok(true);
        };
        if options.instructions {
            return instructions::check(options.record);
        }
        let program = program::build(true)?;
        let measured = measure(&program, &options)?;
        print!("{}", report::table(&measured));
        if let Some(file) = &options.json {
            std::fs::write(file, format!("{:#}\n", report::json(&measured)))?;
        }
        if let Some(file) = &options.results {
            std::fs::write(file, report::markdown(&measured))?;
            eprintln!("written: {}", file.display());
        }
        Ok(true)
    };
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// Nothing if there is nothing left to do.
fn arguments() -> Result<Option<Options>, lexopt::Error> {
    let mut options = Options::default();
    let mut parser = Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Long("quick") => options.quick = true,
            Arg::Long("rounds") => options.rounds = Some(parser.value()?.parse()?),
            Arg::Long("core") => options.core = Some(parser.value()?.parse()?),
            Arg::Long("json") => options.json = Some(parser.value()?.into()),
            Arg::Long("results") => options.results = Some(parser.value()?.into()),
            Arg::Long("instructions") => options.instructions = true,
            Arg::Long("record") => options.record = true,
            Arg::Long("only") => {
                for name in parser.value()?.string()?.split(',') {
                    let known = RUNTIMES.iter().find(|runtime| **runtime == name);
                    options.runtimes.push(known.ok_or_else(|| format!("no runtime {name}; there are {RUNTIMES:?}"))?);
                }
            }
            Arg::Long("list") => {
                ROWS.iter().for_each(|row| println!("{:16} {}", row.name, row.title));
                return Ok(None);
            }
            Arg::Short('h') | Arg::Long("help") => {
                println!("{HELP}");
                return Ok(None);
            }
            Arg::Value(name) => {
                let name = name.string()?;
                let row = ROWS.iter().find(|row| row.name == name);
                options.rows.push(row.ok_or_else(|| format!("no workload {name}; see --list"))?);
            }
            other => return Err(other.unexpected()),
        }
    }
    let all = options.rows.is_empty() && options.runtimes.is_empty();
    if options.rows.is_empty() {
        options.rows = ROWS.iter().collect();
    }
    if options.runtimes.is_empty() {
        options.runtimes = RUNTIMES.to_vec();
    }
    if all && !options.quick && options.results.is_none() {
        options.results = Some(Path::new(program::HERE).join("RESULTS.md"));
    }
    Ok(Some(options))
}

/// All rounds of all rows.
fn measure(program: &Path, options: &Options) -> Result<Vec<Measured>, Box<dyn Error>> {
    let rounds = options.rounds.unwrap_or(if options.quick { 3 } else { 7 }).max(1);
    let bar = ProgressBar::new((options.rows.len() * rounds * options.runtimes.len()) as u64);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}, {eta} left")?);
    let mut all = Vec::new();
    for row in &options.rows {
        // Who has nothing of the kind, or failed, is left out after the first round.
        let mut runtimes = options.runtimes.clone();
        let mut measured = Measured { row, samples: BTreeMap::new(), failed: Vec::new() };
        for round in 0..rounds {
            let mut stay = Vec::new();
            for runtime in &runtimes {
                bar.set_message(format!("{} on {runtime}", row.name));
                let mut command = Command::new(program);
                command.args([row.workload, *runtime, "--size", &row.size.to_string()]);
                if options.quick {
                    command.arg("--quick");
                }
                if let Some(core) = options.core {
                    command.args(["--core", &core.to_string()]);
                }
                match program::run(&mut command) {
                    Ok(None) => {}
                    Ok(Some(metrics)) => {
                        stay.push(*runtime);
                        for (metric, value) in metrics {
                            let samples: &mut Samples = measured.samples.entry((metric, *runtime)).or_default();
                            samples.push(value);
                        }
                    }
                    Err(error) => measured.failed.push((runtime, error)),
                }
                bar.inc(if stay.last() == Some(runtime) { 1 } else { (rounds - round) as u64 });
            }
            runtimes = stay;
        }
        all.push(measured);
    }
    bar.finish_and_clear();
    Ok(all)
}
