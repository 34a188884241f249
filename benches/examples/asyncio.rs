//! `trefoil::asyncio` against CPython 3.13's asyncio, and uvloop, on this machine.
//!
//! ```sh
//! cargo run --release -p trefoil-bench --example asyncio                 # 7 rounds; writes benches/ASYNCIO.md
//! cargo run --release -p trefoil-bench --example asyncio -- --quick      # a first look: 1 round, no file
//! ```
//!
//! The workloads are the same in Rust, below, and in `benches/asyncio/workload.py`. Each runs in a process of its own, in turn, once to warm up and
//! once to be measured; what counts is the CPU time of the process, clients and server together.

use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use trefoil::Cancelled;
use trefoil::asyncio::{self, ReadError, StreamReader, StreamWriter, create_task};

const N: usize = 100_000;
const CLIENTS: usize = 64;
const TRIPS: usize = 300;
const SIZE: usize = 64;

const WORKLOADS: [(&str, &str); 4] = [
    ("gather-ready", "`gather` of 100,000 tasks that are ready: one of them"),
    ("gather-yield", "`gather` of 100,000 tasks that yield once: one of them"),
    ("create-await", "a task created and awaited"),
    ("echo", "round trip of 64 B over streams, one of 64 connections; client and server"),
];

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--workload", name] => {
            println!("{}", workload(name)?);
            Ok(())
        }
        [] => compare(7, true),
        ["--quick"] => compare(1, false),
        ["--rounds", n] => compare(n.parse()?, true),
        _ => Err("usage: asyncio [--quick | --rounds N]".into()),
    }
}

// ---- What is measured -----------------------------------------------------------------------------------------------

async fn ready() -> Result<usize, Cancelled> {
    Ok(1)
}

async fn yields() -> Result<usize, Cancelled> {
    asyncio::sleep(std::time::Duration::ZERO).await?;
    Ok(1)
}

async fn create_await() -> io::Result<()> {
    for _ in 0..N {
        create_task(ready()).await?;
    }
    Ok(())
}

async fn serve(mut reader: StreamReader, writer: StreamWriter) -> io::Result<()> {
    loop {
        match reader.readexactly(SIZE).await {
            Ok(message) => writer.write(&message)?,
            Err(ReadError::Incomplete { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        writer.drain().await?;
    }
}

async fn client(address: std::net::SocketAddr) -> io::Result<()> {
    let (mut reader, writer) = asyncio::open_connection(address).await?;
    let message = [b'x'; SIZE];
    for _ in 0..TRIPS {
        writer.write(&message)?;
        writer.drain().await?;
        reader.readexactly(SIZE).await?;
    }
    writer.close();
    writer.wait_closed().await
}

async fn echo() -> io::Result<()> {
    let server = asyncio::start_server(serve, "127.0.0.1:0").await?;
    let address = server.local_addr()?;
    asyncio::gather((0..CLIENTS).map(|_| client(address))).await?;
    server.close();
    Ok(())
}

async fn once(name: &str) -> io::Result<usize> {
    let sum = match name {
        "gather-ready" => asyncio::gather((0..N).map(|_| ready())).await?.into_iter().sum(),
        "gather-yield" => asyncio::gather((0..N).map(|_| yields())).await?.into_iter().sum(),
        "create-await" => {
            create_await().await?;
            N
        }
        "echo" => {
            echo().await?;
            N
        }
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "no such workload")),
    };
    assert_eq!(sum, N);
    Ok(if name == "echo" { CLIENTS * TRIPS } else { N })
}

/// Nanoseconds of CPU time of this process.
fn cpu() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

fn workload(name: &str) -> io::Result<f64> {
    let name = name.to_string();
    asyncio::run(async move {
        once(&name).await?;
        let begin = cpu();
        let operations = once(&name).await?;
        Ok((cpu() - begin) / operations as f64)
    })
}

// ---- The comparison -------------------------------------------------------------------------------------------------

/// A way to run a workload.
struct Runtime {
    name: &'static str,
    version: String,
    command: Vec<String>,
}

fn benches() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).into()
}

fn said(command: &mut Command) -> Outcome<String> {
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_string())
}

/// CPython 3.13: `PYTHON`, or `python3.13`, or that of pyenv.
fn python() -> Outcome<String> {
    let home = std::env::var("HOME").unwrap_or_default();
    let pyenv = std::fs::read_dir(format!("{home}/.pyenv/versions")).into_iter().flatten().flatten();
    let of_pyenv = pyenv.map(|entry| entry.path().join("bin/python3.13").display().to_string());
    let candidates = std::env::var("PYTHON").into_iter().chain(["python3.13".to_string()]).chain(of_pyenv);
    for candidate in candidates {
        if said(Command::new(&candidate).arg("--version")).is_ok_and(|version| version.starts_with("Python 3.13")) {
            return Ok(candidate);
        }
    }
    Err("there is no CPython 3.13: set PYTHON".into())
}

/// A virtual environment with uvloop, in `target/`.
fn with_uvloop(python: &str) -> Outcome<(String, String)> {
    let venv = benches().join("../target/asyncio-venv");
    let inside = venv.join("bin/python").display().to_string();
    let version = ["-c", "import uvloop; print(uvloop.__version__)"];
    if let Ok(version) = said(Command::new(&inside).args(version)) {
        return Ok((inside, version));
    }
    said(Command::new(python).args(["-m", "venv"]).arg(&venv))?;
    said(Command::new(&inside).args(["-m", "pip", "install", "--quiet", "uvloop"]))?;
    let version = said(Command::new(&inside).args(version))?;
    Ok((inside, version))
}

fn runtimes() -> Outcome<Vec<Runtime>> {
    let this = std::env::current_exe()?.display().to_string();
    let python = python()?;
    let script = benches().join("asyncio/workload.py").display().to_string();
    let mut runtimes = vec![
        Runtime {
            name: "trefoil::asyncio",
            version: env!("CARGO_PKG_VERSION").into(),
            command: vec![this, "--workload".into()],
        },
        Runtime {
            name: "asyncio",
            version: said(Command::new(&python).arg("--version"))?,
            command: vec![python.clone(), script.clone(), "asyncio".into()],
        },
    ];
    match with_uvloop(&python) {
        Ok((python, version)) => {
            runtimes.push(Runtime { name: "uvloop", version, command: vec![python, script, "uvloop".into()] });
        }
        Err(error) => eprintln!("PASSED OVER: uvloop cannot be had: {error}"),
    }
    Ok(runtimes)
}

fn compare(rounds: usize, write: bool) -> Outcome<()> {
    let runtimes = runtimes()?;
    let mut samples = vec![vec![Vec::new(); runtimes.len()]; WORKLOADS.len()];
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        for (row, (workload, _)) in samples.iter_mut().zip(WORKLOADS) {
            for (cell, runtime) in row.iter_mut().zip(&runtimes) {
                let (program, arguments) = runtime.command.split_first().expect("a command has a program");
                let time = said(Command::new(program).args(arguments).arg(workload))?;
                cell.push(time.parse::<f64>()?);
            }
        }
    }
    let table = table(&runtimes, samples);
    println!("{table}");
    if write {
        let machine = format!(
            "{} cores, Linux {}",
            std::thread::available_parallelism()?,
            said(Command::new("uname").arg("-r"))?
        );
        let versions: Vec<_> = runtimes.iter().map(|runtime| format!("{} {}", runtime.name, runtime.version)).collect();
        let rust = said(Command::new("rustc").arg("--version")).unwrap_or_default();
        let page = format!(
            "# Against asyncio\n\nWritten by `cargo run --release -p trefoil-bench --example asyncio -- --rounds {rounds}`; what is measured is in `benches/examples/asyncio.rs` and \
             `benches/asyncio/workload.py`.\n\nNanoseconds of CPU time (user and system) for each operation: the median of {rounds} rounds, and the least and the most. The factor is that \
             of the medians to `trefoil::asyncio`.\n\n{table}\n{machine}; {}; {rust}.\n",
            versions.join(", ")
        );
        std::fs::write(benches().join("ASYNCIO.md"), page)?;
    }
    Ok(())
}

fn table(runtimes: &[Runtime], samples: Vec<Vec<Vec<f64>>>) -> String {
    let mut table = String::from("| |");
    for runtime in runtimes {
        _ = write!(table, " {} |", runtime.name);
    }
    table += "\n| --- |";
    table += &" --- |".repeat(runtimes.len());
    for (row, (_, what)) in samples.into_iter().zip(WORKLOADS) {
        _ = write!(table, "\n| {what} |");
        let mut first = None;
        for mut cell in row {
            cell.sort_by(f64::total_cmp);
            let median = cell[cell.len() / 2];
            let (least, most) = (cell[0], cell[cell.len() - 1]);
            _ = write!(table, " {median:.0} ({least:.0}–{most:.0})");
            match first {
                None => first = Some(median),
                Some(first) => _ = write!(table, ", {:.1} ×", median / first),
            }
            table += " |";
        }
    }
    table + "\n"
}
