//! The statements for asyncio's semantics.

use super::case::Kind::{self, *};
use super::case::Language;

pub const LANGUAGE: Language = Language { program: PROGRAM, argument };

const QUEUE: Kind = Defined("queues");
const BARRIER: Kind = Defined("barriers");
const PUT: Kind = Fields(&[("queue", QUEUE), ("value", Anything)]);
const NAMED: Kind = Fields(&[("id", Text), ("body", Block)]);
const WHEN: Kind = OneOf(&["ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION"]);

fn argument(verb: &str) -> Option<Kind> {
    Some(match verb {
        "log" | "raise" | "cancel" | "uncancel" | "cancelling" | "state" | "await" | "shield" => Text,
        "set" | "clear" | "wait_event" | "condition_wait" => Text,
        "sleep" => Number,
        "return" => Anything,
        "uncancel_self" => Nothing,
        "create" => Fields(&[("name", Text), ("body", Block)]),
        "spawn" => Fields(&[("in", Text), ("name", Text), ("body", Block)]),
        "set_result" => Fields(&[("future", Text), ("value", Anything)]),
        "set_exception" => Fields(&[("future", Text), ("label", Text)]),
        "gather" => Fields(&[("of", Names), ("return_exceptions?", Flag)]),
        "wait" => Fields(&[("of", Names), ("timeout?", NumberOrNull), ("when?", WHEN)]),
        "wait_for" => Fields(&[("of", Text), ("timeout", NumberOrNull)]),
        "as_completed" => Fields(&[("of", Names), ("timeout?", NumberOrNull)]),
        "timeout" => Fields(&[("id", Text), ("after", NumberOrNull), ("body", Block)]),
        "reschedule" => Fields(&[("id", Text), ("after", NumberOrNull)]),
        "group" | "lock" | "condition" => NAMED,
        "semaphore" => Fields(&[("id", Defined("semaphores")), ("body", Block)]),
        "try" => Fields(&[("body", Block), ("except?", Block), ("cancelled?", Block), ("swallow?", Flag)]),
        "finally" => Fields(&[("body", Block), ("finally", Block)]),
        "notify" => Fields(&[("id", Text), ("n?", NumberOrNull)]),
        "barrier" | "barrier_abort" => BARRIER,
        "put" | "put_nowait" => PUT,
        "get" | "get_nowait" | "task_done" | "join" => QUEUE,
        "shutdown" => Fields(&[("queue", QUEUE), ("immediate?", Flag)]),
        _ => return None,
    })
}

const PROGRAM: Kind =
    Fields(&[("queues?", Anything), ("semaphores?", Anything), ("barriers?", Anything), ("body", Block)]);
