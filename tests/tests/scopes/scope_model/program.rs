//! Random programs, and what they refer to: each operation is aimed at a scope that is there.

use super::{Item, Op, Program, Settings, Time};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn when() -> impl Strategy<Value = Option<(i64, Time)>> {
    prop_oneof![1 => Just(None), 5 => (-2..8i64, 0..2u64).prop_map(Some)]
}

fn settings() -> impl Strategy<Value = Settings> {
    (
        prop_oneof![2 => Just(None), 3 => (1..12i64, 0..2u64).prop_map(Some)],
        prop::bool::weighted(0.25),
        prop::bool::weighted(0.06),
        prop_oneof![8 => Just(None), 1 => (0..12i64, 0..2u64).prop_map(Some)],
    )
        .prop_map(|(deadline, shield, cancelled, soft)| Settings { deadline, shield, cancelled, soft })
}

fn op() -> impl Strategy<Value = Op> {
    // Targets are any numbers here; `number` makes nodes of them.
    prop_oneof![
        2 => any::<usize>().prop_map(Op::Cancel),
        4 => (any::<usize>(), when()).prop_map(|(target, when)| Op::Deadline(target, when)),
        4 => (any::<usize>(), any::<bool>()).prop_map(|(target, up)| Op::Shield(target, up)),
        4 => (any::<usize>(), (0..8i64, 0..2u64)).prop_map(|(target, grace)| Op::Soft(target, grace)),
        2 => any::<usize>().prop_map(Op::Blink),
        2 => (any::<usize>(), any::<usize>()).prop_map(|(cancel, shield)| Op::CancelAndShield(cancel, shield)),
        2 => (any::<usize>(), any::<usize>(), any::<bool>()).prop_map(|(late, shield, up)| Op::Stale(late, shield, up)),
        2 => any::<usize>().prop_map(Op::Read),
        1 => Just(Op::Look),
    ]
}

fn item() -> impl Strategy<Value = Item> {
    let leaf = prop_oneof![
        3 => (1..6u64, 0..2u64, prop::bool::weighted(0.3))
            .prop_map(|(units, shift, swallow)| Item::Sleep { units, shift, swallow }),
        3 => (prop::collection::vec(op(), 1..4), prop::bool::weighted(0.3))
            .prop_map(|(ops, swallow)| Item::Operate { ops, swallow }),
        1 => Just(Item::Look),
    ];
    leaf.prop_recursive(5, 48, 4, |item| {
        let items = || prop::collection::vec(item.clone(), 1..5);
        prop_oneof![
            3 => (settings(), items()).prop_map(|(settings, items)| Item::Scope { node: 0, settings, items }),
            2 => items().prop_map(|items| Item::Polite { node: 0, items }),
            2 => (settings(), prop::collection::vec(items(), 1..4)).prop_map(|(settings, flows)| {
                Item::Nursery { node: 0, settings, flows: flows.into_iter().map(|items| (0, items)).collect() }
            }),
        ]
    })
}

pub fn program() -> impl Strategy<Value = Program> {
    prop::collection::vec(item(), 1..6).prop_map(|mut main| {
        let mut program = Program { main: Vec::new(), nodes: 0, flows: 1, scopes: BTreeMap::new() };
        number(&mut main, &mut program);
        let scopes: Vec<usize> = program.scopes.keys().copied().collect();
        aim(&mut main, &scopes, &mut Vec::new(), &mut Vec::new());
        program.main = main;
        program
    })
}

fn number(items: &mut [Item], program: &mut Program) {
    for item in items {
        match item {
            Item::Scope { node, settings, items } => {
                *node = program.nodes;
                program.nodes += 1;
                program.scopes.insert(*node, settings.clone());
                number(items, program);
            }
            Item::Polite { node, items } => {
                *node = program.nodes;
                program.nodes += 1;
                number(items, program);
            }
            Item::Nursery { node, flows, .. } => {
                *node = program.nodes;
                program.nodes += 1;
                for (flow, items) in flows {
                    *flow = program.flows;
                    program.flows += 1;
                    number(items, program);
                }
            }
            _ => {}
        }
    }
}

/// Operations aim at any scope of the program (entered, or not, or left), or at a nursery that they are in.
fn aim(items: &mut [Item], scopes: &[usize], nurseries: &mut Vec<usize>, around: &mut Vec<usize>) {
    for item in items {
        match item {
            Item::Operate { ops, .. } => {
                let targets: Vec<usize> = scopes.iter().chain(nurseries.iter()).copied().collect();
                if targets.is_empty() {
                    ops.clear();
                }
                for op in ops {
                    match op {
                        Op::Cancel(t) | Op::Deadline(t, _) | Op::Shield(t, _) => *t = targets[*t % targets.len()],
                        Op::Soft(t, _) | Op::Blink(t) | Op::Read(t) => *t = targets[*t % targets.len()],
                        Op::CancelAndShield(cancel, shield) => {
                            *cancel = targets[*cancel % targets.len()];
                            *shield = targets[*shield % targets.len()];
                        }
                        Op::Stale(..) if around.is_empty() => *op = Op::Look,
                        Op::Stale(late, shield, _) => {
                            *late = around[*late % around.len()];
                            *shield = around[*shield % around.len()];
                        }
                        Op::Look => {}
                    }
                }
            }
            Item::Scope { node, items, .. } => {
                around.push(*node);
                aim(items, scopes, nurseries, around);
                around.pop();
            }
            Item::Polite { items, .. } => aim(items, scopes, nurseries, around),
            Item::Nursery { node, flows, .. } => {
                nurseries.push(*node);
                around.push(*node);
                flows.iter_mut().for_each(|(_, items)| aim(items, scopes, nurseries, around));
                around.pop();
                nurseries.pop();
            }
            _ => {}
        }
    }
}
