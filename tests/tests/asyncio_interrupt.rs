//! Ctrl-C in a program of asyncio's vocabulary (R5). It has no harness, since it is about the main thread, and each case is a process of its own: this
//! program, with the name of the case as its argument.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use trefoil::asyncio;
use trefoil::{CancelAware, Cancelled};
use trefoil_tests::ms;

const SIGINT: i32 = 2;

/// Says that it can be interrupted now, from within a task.
async fn ready() {
    println!("ready");
}

// ---- What the processes do -----------------------------------------------------------------------------------------

/// Main is cancelled once, cleans up, and so does what it leaves behind.
fn cleans_up() {
    let ended = asyncio::run(async {
        let _left = asyncio::create_task(async {
            let slept = asyncio::sleep(ms(100_000)).await;
            println!("the other one is told");
            slept
        });
        ready().await;
        let slept = asyncio::sleep(ms(100_000)).await;
        assert!(slept.is_err());
        asyncio::sleep(ms(1)).await?; // It was told once: clean-up may wait.
        println!("clean");
        slept
    });
    assert!(ended.is_err_and(|error| error.is_cancelled()));
    println!("main returns");
}

/// Main handles it and goes on: the loop ends as if nothing had been.
fn swallows() {
    let ended = asyncio::run(async {
        ready().await;
        _ = asyncio::sleep(ms(100_000)).await;
        Ok::<_, Cancelled>("went on")
    });
    println!("{}", ended.unwrap());
}

/// The second one ends the process.
fn never_ends() {
    _ = asyncio::run(async {
        ready().await;
        loop {
            if asyncio::sleep(ms(100_000)).await.is_err() {
                println!("told");
            }
        }
        #[allow(unreachable_code)]
        Ok::<(), Cancelled>(())
    });
}

/// A clean-up that blocks the thread of the loop.
fn blocks() {
    _ = asyncio::run(async {
        ready().await;
        let slept = asyncio::sleep(ms(100_000)).await;
        thread::sleep(ms(100_000));
        slept
    });
}

/// A function on a thread that never returns: `to_thread` waits for it, whatever is cancelled.
fn waits_for_a_thread() {
    _ = asyncio::run(async {
        let stuck = asyncio::to_thread(|| -> Result<(), Cancelled> {
            println!("ready");
            loop {
                thread::park();
            }
        });
        stuck.await
    });
}

/// A runner listens in each of its runs, and between them SIGINT is as ever.
fn between_runs() {
    let mut runner = asyncio::Runner::new();
    for _ in 0..2 {
        let ended = runner.run(async {
            ready().await;
            asyncio::sleep(ms(100_000)).await
        });
        assert!(ended.is_err());
        println!("cancelled");
    }
    println!("between");
    thread::sleep(ms(100_000));
}

/// Somebody else handles SIGINT: main is left alone.
fn has_a_handler() {
    let handled = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    signal_hook::flag::register(SIGINT, handled.clone()).unwrap();
    let ended = asyncio::run(async move {
        ready().await;
        while !handled.load(std::sync::atomic::Ordering::SeqCst) {
            asyncio::sleep(ms(1)).await?;
        }
        asyncio::sleep(ms(20)).await
    });
    ended.unwrap();
    println!("not cancelled");
}

/// A loop on another thread is none of Ctrl-C's business.
fn elsewhere() {
    thread::spawn(|| {
        _ = asyncio::run(async {
            ready().await;
            let slept = asyncio::sleep(ms(100_000)).await;
            println!("told");
            slept
        });
    })
    .join()
    .unwrap();
}

type Case = (&'static str, fn());

const CASES: [Case; 8] = [
    ("cleans_up", cleans_up),
    ("swallows", swallows),
    ("never_ends", never_ends),
    ("blocks", blocks),
    ("waits_for_a_thread", waits_for_a_thread),
    ("between_runs", between_runs),
    ("has_a_handler", has_a_handler),
    ("elsewhere", elsewhere),
];

// ---- What becomes of them ------------------------------------------------------------------------------------------

struct Program {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Program {
    fn start(case: &str) -> Self {
        Self::start_with(case, Stdio::inherit())
    }

    fn start_with(case: &str, errors: Stdio) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut child = command.arg(case).stdout(Stdio::piped()).stderr(errors).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_string()
    }

    fn interrupt(&self) {
        let sent = Command::new("sh").arg("-c").arg(format!("kill -INT {}", self.child.id())).status().unwrap();
        assert!(sent.success());
    }

    /// One that is interrupted when it is ready.
    fn interrupted(case: &str) -> Self {
        let mut program = Self::start(case);
        assert_eq!(program.line(), "ready");
        program.interrupt();
        program
    }

    /// What else it prints, and by which signal it ended or with which code.
    fn end(mut self) -> (String, Option<i32>, Option<i32>) {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        let status = self.child.wait().unwrap();
        (rest, status.signal(), status.code())
    }
}

fn aio_r05_the_first_interrupt_cancels_main_and_what_is_left() {
    let program = Program::interrupted("cleans_up");
    assert_eq!(program.end(), ("clean\nthe other one is told\nmain returns\n".into(), None, Some(0)));
}

fn aio_r05_a_main_that_handles_the_interrupt_goes_on() {
    let program = Program::interrupted("swallows");
    assert_eq!(program.end(), ("went on\n".into(), None, Some(0)));
}

fn aio_r05_the_second_interrupt_ends_the_process() {
    let mut program = Program::interrupted("never_ends");
    assert_eq!(program.line(), "told");
    program.interrupt();
    assert_eq!(program.end(), (String::new(), Some(SIGINT), None));
}

/// Before it the user is told why the first one did not.
fn aio_r05_a_loop_that_an_interrupt_does_not_end_says_what_it_does() {
    for (case, waits) in [("blocks", "is running"), ("waits_for_a_thread", "waits for a function on a thread at ")] {
        let mut program = Program::start_with(case, Stdio::piped());
        assert_eq!(program.line(), "ready");
        program.interrupt();
        let mut said = BufReader::new(program.child.stderr.take().unwrap()).lines().map(Result::unwrap);
        assert!(said.any(|line| line.contains("Ctrl-C has cancelled the main of the loop, which has not ended")));
        assert!(said.any(|line| line.contains(waits)), "{case}");
        program.interrupt();
        assert_eq!(program.end(), (String::new(), Some(SIGINT), None));
    }
}

fn aio_r05_between_two_runs_an_interrupt_does_what_it_does() {
    let mut program = Program::start("between_runs");
    for _ in 0..2 {
        assert_eq!(program.line(), "ready");
        program.interrupt();
        assert_eq!(program.line(), "cancelled");
    }
    assert_eq!(program.line(), "between");
    program.interrupt();
    assert_eq!(program.end(), (String::new(), Some(SIGINT), None));
}

fn aio_r05_who_has_a_handler_keeps_it() {
    let program = Program::interrupted("has_a_handler");
    assert_eq!(program.end(), ("not cancelled\n".into(), None, Some(0)));
}

fn aio_r05_a_loop_on_another_thread_is_left_alone() {
    let program = Program::interrupted("elsewhere");
    assert_eq!(program.end(), (String::new(), Some(SIGINT), None));
}

fn main() {
    let name = std::env::args().nth(1).unwrap_or_default();
    if let Some((_, case)) = CASES.iter().find(|(case, _)| *case == name) {
        return case();
    }
    // A shell has what it runs in the background ignore Ctrl-C, and its children with it. What a process handles itself, its children do not.
    signal_hook::flag::register(SIGINT, Arc::default()).unwrap();
    aio_r05_the_first_interrupt_cancels_main_and_what_is_left();
    aio_r05_a_main_that_handles_the_interrupt_goes_on();
    aio_r05_the_second_interrupt_ends_the_process();
    aio_r05_a_loop_that_an_interrupt_does_not_end_says_what_it_does();
    aio_r05_between_two_runs_an_interrupt_does_what_it_does();
    aio_r05_who_has_a_handler_keeps_it();
    aio_r05_a_loop_on_another_thread_is_left_alone();
    println!("7 passed");
}
