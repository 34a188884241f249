//! Measures trefoil, its peers, and what the same work costs without any runtime.
//!
//! ```sh
//! cargo run --release -p trefoil-bench -- --rounds 5          # everything: 12 minutes; writes benches/RESULTS.md and the book's plots
//! cargo run --release -p trefoil-bench -- spawn-1k echo       # some of it
//! cargo run --release -p trefoil-bench -- --quick             # a first look
//! cargo run --release -p trefoil-bench -- --instructions      # counts instructions, and compares with benches/instructions.txt
//! ```
//!
//! Each runtime runs each workload in a process of its own, pinned to a core, in turn: A B C A B C …, so that a slow phase of the machine
//! meets all of them. `aims` has the workloads, `runtimes/` does them.

mod aims;
mod instructions;
mod machine;
mod measure;
mod measured;
mod notes;
mod plot;
mod program;
mod report;
mod samples;

use aims::{ROWS, Row};
use lexopt::{Arg, Parser, ValueExt};
use measured::Report;
use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const HELP: &str = "\
usage: cargo run --release -p trefoil-bench -- [workload..] [options]
  --quick             3 short rounds instead of 5, and no RESULTS.md
  --rounds N          so many rounds
  --only RUNTIMES     by comma, e.g. trefoil,tokio,floor,trefoil-epoll
  --core N            pinned to that core; the last one by default. Two threads, and the load of servers: that one and the one before
  --json FILE         all samples
  --from FILE         measures nothing: the reports of what --json has written
  --results FILE      the tables as Markdown
  --plot DIR          a bar chart for each workload, as SVG
                      (where all is measured: benches/RESULTS.md, benches/results.json, book/src/plots)
  --list              the workloads
  --instructions      counts instructions under valgrind, and fails where there are more than recorded
  --record            with --instructions: records them";

#[derive(Debug, Default)]
struct Options {
    rows: Vec<&'static Row>,
    only: Vec<String>,
    quick: bool,
    rounds: Option<usize>,
    core: Option<usize>,
    json: Option<PathBuf>,
    from: Option<PathBuf>,
    results: Option<PathBuf>,
    plot: Option<PathBuf>,
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
        let report = match &options.from {
            Some(file) => {
                let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
                let mut report = Report::from_json(&text).map_err(|error| format!("{}: {error}", file.display()))?;
                report.keep(&options.rows, &options.only);
                report
            }
            None => Report::new(measure::all(&program::build(true)?, &options)?),
        };
        print!("{}", report::table(&report));
        write(&report, &options)?;
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

/// What was asked for.
fn write(report: &Report, options: &Options) -> Result<(), Box<dyn Error>> {
    let write = |file: &Path, text: String| {
        fs::write(file, text).map_err(|error| format!("{} cannot be written: {error}", file.display()))
    };
    if let Some(file) = &options.json {
        write(file, format!("{:#}\n", report.to_json()))?;
    }
    if let Some(file) = &options.results {
        write(file, report::markdown(report))?;
    }
    if let Some(directory) = &options.plot {
        plot::write(report, directory)?;
    }
    for path in [&options.json, &options.results, &options.plot].into_iter().flatten() {
        eprintln!("written: {}", path.display());
    }
    Ok(())
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
            Arg::Long("from") => options.from = Some(parser.value()?.into()),
            Arg::Long("results") => options.results = Some(parser.value()?.into()),
            Arg::Long("plot") => options.plot = Some(parser.value()?.into()),
            Arg::Long("instructions") => options.instructions = true,
            Arg::Long("record") => options.record = true,
            Arg::Long("only") => {
                for name in parser.value()?.string()?.split(',') {
                    if !ROWS.iter().any(|row| row.field.runtimes.contains(&name)) {
                        let names: BTreeSet<_> = ROWS.iter().flat_map(|row| row.field.runtimes).collect();
                        return Err(format!("no runtime {name}; there are {names:?}").into());
                    }
                    options.only.push(name.to_owned());
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
    if options.record && !options.instructions {
        return Err("--record is for --instructions".into());
    }
    // A report of everything is of five rounds at least.
    let all = options.rows.is_empty()
        && options.only.is_empty()
        && !options.quick
        && options.from.is_none()
        && options.rounds.is_none_or(|rounds| rounds >= 5);
    if options.rows.is_empty() {
        options.rows = ROWS.iter().collect();
    }
    if all {
        let here = Path::new(program::HERE);
        options.json.get_or_insert_with(|| here.join("results.json"));
        options.results.get_or_insert_with(|| here.join("RESULTS.md"));
        options.plot.get_or_insert_with(|| here.join("../book/src/plots"));
    }
    Ok(Some(options))
}
