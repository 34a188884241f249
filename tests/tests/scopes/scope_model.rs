//! Random trees of scopes and nurseries, with operations on them from tasks all over the tree, against a plain sequential model of the
//! rules: R2, R3, R6, R14, R15, R18–R20, R24–R26, R32, R33, R43–R48, R55, R56; and of soft cancels, which cancel the polite scopes below
//! them now, and the rest later.
//!
//! A program is a tree of *flows* (main, the bodies of nurseries, their children), each a list of items: sleep; sleep and then operate
//! on scopes; enter a scope; open a nursery; look at the effective deadline. The model predicts what each flow sees and when, to the
//! nanosecond, and the flags of every scope at the end.
//!
//! So that a prediction needs no knowledge of the order in which tasks run within one instant, operations happen at instants at which
//! no deadline expires naturally and no other flow wakes by itself (each flow has its own instants in every [`UNIT`]); deadlines and
//! plain sleeps share a few instants of their own, so that they coincide often. And a flow that has operated yields once, so that the
//! loop looks at deadlines that were moved into the past (R45).
//!
//! That the programs reach the rules is checked too: [`mutants_are_found`] breaks one rule of the model after the other, and asks for
//! programs that tell the difference.

mod model;
mod program;
mod real;

use self::model::{Model, Mutant};
use self::program::program;
use self::real::Real;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use std::collections::BTreeMap;

// ---- Programs ------------------------------------------------------------------------------------------------------

/// Nanoseconds.
type Time = u64;

const UNIT: Time = 1024;

/// Where in a unit sleeps end and deadlines are; flows operate at the instants below.
const SHARED: Time = 700;

#[derive(Clone, Debug)]
enum Op {
    Cancel(usize),
    /// Relative to now, in units; `None` takes it away.
    Deadline(usize, Option<(i64, Time)>),
    Shield(usize, bool),
    /// With a grace of so long.
    Soft(usize, (i64, Time)),
    /// Lowers the shield and raises it again, at once (R20).
    Blink(usize),
    /// Cancels one and raises the shield of the other, at once (R20).
    CancelAndShield(usize, usize),
    /// Moves the deadline of a scope that it is in into the past, sets the shield of that or another one around, and looks, at once
    /// (R2, R14).
    Stale(usize, usize, bool),
    /// Reads `cancel_called`.
    Read(usize),
    Look,
}

#[derive(Clone, Debug)]
struct Settings {
    deadline: Option<(i64, Time)>,
    shield: bool,
    cancelled: bool,
    soft: Option<(i64, Time)>,
}

#[derive(Clone, Debug)]
enum Item {
    Sleep {
        units: Time,
        shift: Time,
        swallow: bool,
    },
    Operate {
        ops: Vec<Op>,
        swallow: bool,
    },
    Look,
    Scope {
        node: usize,
        settings: Settings,
        items: Vec<Item>,
    },
    /// `until_soft_cancelled`, which nobody has a handle of.
    Polite {
        node: usize,
        items: Vec<Item>,
    },
    Nursery {
        node: usize,
        settings: Settings,
        flows: Vec<(usize, Vec<Item>)>,
    },
}

#[derive(Clone, Debug)]
struct Program {
    main: Vec<Item>,
    nodes: usize,
    flows: usize,
    /// Which nodes are scopes, with their settings.
    scopes: BTreeMap<usize, Settings>,
}

fn time_of(now: Time, (units, shift): (i64, Time)) -> Time {
    let unit = (now / UNIT) as i64 + units;
    // Into the past means a moment ago: no deadline that was set is at an instant that others use.
    if units <= 0 { now.saturating_sub(1) } else { unit as Time * UNIT + SHARED + shift }
}

/// What is left until then; a moment ago is no time.
fn grace_of(now: Time, when: (i64, Time)) -> Time {
    time_of(now, when).saturating_sub(now)
}

fn next_turn(now: Time, flow: usize) -> Time {
    let at = now / UNIT * UNIT + flow as Time;
    if at > now { at } else { at + UNIT }
}

// ---- What a run shows ----------------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq)]
enum Deadline {
    Cancelled,
    At(Time),
    Never,
}

#[derive(Clone, Debug, PartialEq)]
enum Event {
    Slept,
    Told,
    Operated(Vec<bool>),
    /// What `effective_deadline` and `soft_cancelled` say.
    Looked(Deadline, bool),
    /// A scope was left: its body had completed, or it absorbed a cancellation, or that went on outward.
    Completed(usize),
    Absorbed(usize),
    WentOn(usize),
    NurseryLeft(usize),
    /// A cancellation came out of the flow's top.
    Escaped,
}

#[derive(Debug, Default, PartialEq)]
struct Seen {
    flows: BTreeMap<usize, Vec<(Time, Event)>>,
    /// `(cancel_called, cancelled_caught, soft_cancel_called)` of each scope.
    flags: BTreeMap<usize, (bool, bool, bool)>,
    end: Time,
}

// ---- Tests ---------------------------------------------------------------------------------------------------------

const FLOWS: usize = SHARED as usize - 1;

proptest! {
    #![proptest_config(Config { cases: Config::default().cases.max(400), failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() })]

    #[test]
    fn agrees_with_the_model(program in program()) {
        prop_assume!(program.flows < FLOWS);
        let (model, real) = (Model::run(&program, Mutant::None), Real::run(&program));
        prop_assert_eq!(real, model);
    }
}

/// How many of so many random programs the model tells from each mutant of it; and that the programs are not trivial.
#[test]
fn mutants_are_found() {
    let mut runner = TestRunner::deterministic();
    let (mut found, mut caught, mut went_on, mut flows) = (vec![0; Mutant::ALL.len()], 0, 0, 0);
    let strategy = program();
    for _ in 0..800 {
        let program = strategy.new_tree(&mut runner).unwrap().current();
        let model = Model::run(&program, Mutant::None);
        caught += model.flags.values().filter(|flags| flags.1).count();
        went_on += model.flows.values().flatten().filter(|(_, e)| matches!(e, Event::WentOn(_))).count();
        flows += model.flows.len();
        for (mutant, found) in Mutant::ALL.iter().zip(&mut found) {
            *found += usize::from(Model::run(&program, *mutant) != model);
        }
    }
    println!("{caught} scopes caught, {went_on} let a cancellation through, {flows} flows; found: {found:?}");
    for (mutant, found) in Mutant::ALL.iter().zip(found) {
        assert!(found >= 4, "{mutant:?} differs in {found} of 800 programs only");
    }
}
