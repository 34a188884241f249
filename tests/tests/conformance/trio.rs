//! The statements for Trio's semantics.

use super::case::Kind::{self, *};
use super::case::Language;

pub const LANGUAGE: Language = Language { program: PROGRAM, argument };

const CHANNEL: Kind = Defined("channels");
const SEND: Kind = Fields(&[("ch", CHANNEL), ("value", Anything)]);
const CHILD: Kind = Fields(&[("in", Text), ("name", Text), ("body", Block)]);
const NAMED: Kind = Fields(&[("id", Text), ("body", Block)]);

fn argument(verb: &str) -> Option<Kind> {
    Some(match verb {
        "sleep_forever" | "checkpoint" | "effective_deadline" => Nothing,
        "log" | "raise" | "cancel" | "cancel_nursery" | "cancel_called" | "set" | "wait" | "condition_wait" => Text,
        "recv" | "recv_nowait" | "drain" | "close_send" | "close_recv" => CHANNEL,
        "sleep" => Number,
        "started" => Anything,
        "nursery" | "lock" | "condition" => NAMED,
        "semaphore" => Fields(&[("id", Defined("semaphores")), ("body", Block)]),
        "limiter" => Fields(&[("id", Defined("limiters")), ("body", Block)]),
        "spawn" | "start" => CHILD,
        "scope" => Fields(&[("id", Text), ("after?", NumberOrNull), ("shield?", Flag), ("body", Block)]),
        "fail_after" => Fields(&[("after", Number), ("body", Block)]),
        "set_deadline" => Fields(&[("scope", Text), ("after", NumberOrNull)]),
        "set_shield" => Fields(&[("scope", Text), ("shield", Flag)]),
        "try" => Fields(&[("body", Block), ("except?", Block), ("cancelled?", Block)]),
        "finally" => Fields(&[("body", Block), ("finally", Block)]),
        "send" | "send_nowait" => SEND,
        "notify" => Fields(&[("id", Text), ("n?", NumberOrNull)]),
        _ => return None,
    })
}

const PROGRAM: Kind =
    Fields(&[("channels?", Anything), ("semaphores?", Anything), ("limiters?", Anything), ("body", Block)]);
