//! A case of the conformance tests, as its file has it. What is not of the language is refused before anything runs: a statement
//! that is never reached would not be missed.

use serde_json::{Map, Value};
use std::path::Path;

/// A program, and what it did on the real thing.
pub struct Case {
    pub program: Value,
    /// The trace and the outcome there.
    pub expected: Value,
    /// Those of this library, where they differ on purpose.
    pub here: Option<Value>,
}

/// What an argument or a field of a statement is. Each test has one language, which does not need all of them.
#[allow(dead_code)]
#[derive(Clone, Copy)]
pub enum Kind {
    Nothing,
    Text,
    Number,
    NumberOrNull,
    Flag,
    Anything,
    /// A list of names.
    Names,
    OneOf(&'static [&'static str]),
    Block,
    /// A name that the program has to define, under this key.
    Defined(&'static str),
    /// Fields; those whose name ends in `?` may be absent.
    Fields(&'static [(&'static str, Kind)]),
}

use Kind::{Anything, Block, Defined, Fields, Flag, Names, Nothing, Number, NumberOrNull, OneOf, Text};

/// The statements of a language.
pub struct Language {
    pub program: Kind,
    /// The argument of a statement.
    pub argument: fn(&str) -> Option<Kind>,
}

/// Checks a value; `Err` says what is wrong with it.
fn check(value: &Value, kind: Kind, program: &Value, language: &Language) -> Result<(), String> {
    let fits = match kind {
        Nothing => value.is_null(),
        Text => value.is_string(),
        Number => value.is_number(),
        NumberOrNull => value.is_number() || value.is_null(),
        Flag => value.is_boolean(),
        Anything => true,
        Names => value.as_array().is_some_and(|all| all.iter().all(Value::is_string)),
        OneOf(known) => value.as_str().is_some_and(|text| known.contains(&text)),
        Defined(what) => {
            let name = value.as_str().ok_or_else(|| format!("{value} is no name"))?;
            return match program[what].get(name) {
                Some(_) => Ok(()),
                None => Err(format!("{name:?} is not among the {what}")),
            };
        }
        Block => {
            return value
                .as_array()
                .ok_or("a block is a list")?
                .iter()
                .try_for_each(|s| statement(s, program, language));
        }
        Fields(known) => return fields(value, known, program, language),
    };
    if fits { Ok(()) } else { Err(format!("what is {value} for?")) }
}

fn fields(value: &Value, known: &[(&str, Kind)], program: &Value, language: &Language) -> Result<(), String> {
    let given: &Map<_, _> = value.as_object().ok_or_else(|| format!("{value} has no fields"))?;
    let strange = given.keys().find(|key| !known.iter().any(|(name, _)| name.trim_end_matches('?') == *key));
    if let Some(key) = strange {
        return Err(format!("there is no field {key:?}"));
    }
    for (name, kind) in known {
        match given.get(name.trim_end_matches('?')) {
            Some(field) => check(field, *kind, program, language).map_err(|wrong| format!("{name}: {wrong}"))?,
            None if name.ends_with('?') => {}
            None => return Err(format!("there has to be a field {name:?}")),
        }
    }
    Ok(())
}

fn statement(value: &Value, program: &Value, language: &Language) -> Result<(), String> {
    let one = value.as_object().filter(|all| all.len() == 1).ok_or_else(|| format!("{value} has not one key"))?;
    let (verb, arg) = one.iter().next().expect("it has one");
    let kind = (language.argument)(verb).ok_or_else(|| format!("there is no statement {verb:?}"))?;
    check(arg, kind, program, language).map_err(|wrong| format!("{verb}: {wrong}"))
}

/// A trace and an outcome.
fn record(value: &Value) -> Result<(), String> {
    let line = |line: &Value| line.as_array().is_some_and(|l| l.len() == 2 && l[0].is_u64() && l[1].is_string());
    let lines = |task: &Value| task.as_array().is_some_and(|lines| lines.iter().all(line));
    let trace = value["trace"].as_object().is_some_and(|tasks| tasks.values().all(lines));
    let outcome = value["outcome"].as_array().is_some_and(|all| !all.is_empty() && all.iter().all(Value::is_string));
    if trace && outcome { Ok(()) } else { Err("there has to be a trace and an outcome".into()) }
}

impl Case {
    pub fn read(path: &Path, language: &Language) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        let mut case: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let (program, expected, here) = (case["program"].take(), case["expected"].take(), case.get("here").cloned());
        check(&program, language.program, &program, language).map_err(|wrong| format!("program: {wrong}"))?;
        record(&expected).map_err(|wrong| format!("expected: {wrong}"))?;
        here.iter().try_for_each(record).map_err(|wrong| format!("here: {wrong}"))?;
        Ok(Self { program, expected, here })
    }
}
