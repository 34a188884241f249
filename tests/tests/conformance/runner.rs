//! Runs the cases of one language, and says which of them differ: what both kinds of conformance tests need.

use super::case::{Case, Language};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

/// The first thing that is not as expected.
fn difference(got: &Value, expected: &Value) -> Option<String> {
    let (mine, theirs) = (got["trace"].as_object().unwrap(), expected["trace"].as_object().unwrap());
    let mut tasks: Vec<_> = mine.keys().chain(theirs.keys()).collect();
    tasks.sort();
    tasks.dedup();
    let nothing = Vec::new();
    for task in tasks {
        let lines =
            |all: &serde_json::Map<String, Value>| all.get(task).and_then(Value::as_array).unwrap_or(&nothing).clone();
        let (mine, theirs) = (lines(mine), lines(theirs));
        for i in 0..mine.len().max(theirs.len()) {
            if mine.get(i) != theirs.get(i) {
                let show = |line: Option<&Value>| line.map_or("nothing".into(), Value::to_string);
                return Some(format!(
                    "task {task}, line {i}: {} here, {} expected",
                    show(mine.get(i)),
                    show(theirs.get(i))
                ));
            }
        }
    }
    (got["outcome"] != expected["outcome"])
        .then(|| format!("outcome: {} here, {} expected", got["outcome"], expected["outcome"]))
}

fn cases(folder: &Path) -> Vec<PathBuf> {
    let mut all: Vec<_> = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("the cases in {}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .collect();
    all.sort();
    all
}

/// How long a case may take before the process is ended.
const HANG: Duration = Duration::from_secs(60);

/// Ends the process if it is not dropped in time: a case that hangs is not to be nameless.
struct Watch(#[allow(dead_code)] mpsc::Sender<()>);

impl Watch {
    fn new(report: String) -> Self {
        let (sender, done) = mpsc::channel();
        std::thread::spawn(move || {
            if done.recv_timeout(HANG) == Err(mpsc::RecvTimeoutError::Timeout) {
                println!("{report}");
                std::process::exit(1);
            }
        });
        Self(sender)
    }
}

/// What is compared, and where its cases are.
pub struct Suite {
    pub language: Language,
    /// What a program does here, on each driver.
    pub perform: fn(&Value) -> Vec<Value>,
    /// The folder of its cases, in `conformance/cases`.
    pub cases: &'static str,
    /// The file there that names those that differ, and why.
    pub known: &'static str,
    /// The folder there of cases that are to be refused.
    pub malformed: &'static str,
}

impl Suite {
    /// What is wrong with a case, if anything.
    fn run(&self, path: &Path, known: bool) -> Result<(), String> {
        let case = Case::read(path, &self.language)?;
        let all = std::panic::catch_unwind(|| (self.perform)(&case.program)).map_err(|payload| {
            let text = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref().copied());
            format!("it panicked: {}", text.unwrap_or("with something that is no text").replace('\n', " "))
        })?;
        if all.is_empty() {
            return Err("it did not run".into());
        }
        if let Some(folder) = std::env::var_os("TREFOIL_GOT") {
            let got = Path::new(&folder).join(path.file_name().expect("a file"));
            std::fs::write(got, all[0].to_string()).map_err(|error| format!("TREFOIL_GOT: {error}"))?;
        }
        let differs = |with: &Value| all.iter().find_map(|got| difference(got, with));
        // What happens here is in our copy of a case, wherever this one is from.
        let ours = match &case.here {
            None if known => {
                Case::read(&self.home().join(self.cases).join(path.file_name().expect("a file")), &self.language)?.here
            }
            here => here.clone(),
        };
        match (known, &ours) {
            (false, None) => differs(&case.expected).map_or(Ok(()), Err),
            (false, Some(_)) => Err(format!("{} does not say why it differs", self.known)),
            (true, None) => Err(format!("it has to say what happens \"here\", as {} says that it differs", self.known)),
            (true, Some(_)) if differs(&case.expected).is_none() => Err("known to differ, and does not".into()),
            (true, Some(here)) => {
                differs(here).map_or(Ok(()), |how| Err(format!("not as it differs on purpose: {how}")))
            }
        }
    }

    fn home(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/cases")
    }

    /// Runs every case, names each that fails, and exits with 1 if one did or there was none.
    pub fn main(&self) {
        let home = self.home();
        let folder = std::env::var_os("TREFOIL_CASES").map_or_else(|| home.join(self.cases), PathBuf::from);
        let known = std::fs::read_to_string(home.join(self.known)).expect(self.known);
        let known: Vec<&str> =
            known.lines().filter_map(|line| line.split_whitespace().next()).filter(|w| !w.starts_with('#')).collect();
        let only = std::env::args().nth(1).filter(|arg| !arg.starts_with('-'));
        let (mut passed, mut failed) = (0_usize, 0_usize);
        for path in cases(&folder) {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            if only.as_ref().is_some_and(|only| !name.contains(&**only)) {
                continue;
            }
            let watch = Watch::new(format!("{name}: it does not end\n{passed} passed, {} failed", failed + 1));
            let result = self.run(&path, known.contains(&&*name));
            drop(watch);
            match result {
                Ok(()) => passed += 1,
                Err(wrong) => {
                    failed += 1;
                    println!("{name}: {wrong}");
                }
            }
        }
        if std::env::var_os("TREFOIL_CASES").is_none() {
            for path in cases(&home.join(self.malformed)) {
                if Case::read(&path, &self.language).is_ok() {
                    failed += 1;
                    println!("{}: it is malformed, and was not refused", path.display());
                }
            }
        }
        println!("{passed} passed, {failed} failed");
        if failed > 0 || passed == 0 {
            std::process::exit(1);
        }
    }
}
