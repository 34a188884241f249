//! The page of a timeline, and the program in it, which is run here by an engine without a browser: as much of one as it needs is in `dom.js`.

use rquickjs::{CatchResultExt, Context, Runtime};
use serde_json::Value;
use std::panic::Location;
use std::rc::Rc;
use std::time::Duration;
use trefoil_inspect::{Timeline, Trace};
use trefoil_nursery::{Cancelled, channel, move_on_after, nursery, sleep, sleep_forever, sync::Mutex};
use trefoil_runtime::{Options, ThreadDriver};

const HOSTILE: &str =
    "</script><script>alert(1)</script><img src=x onerror=alert(1)><!--\u{2028}\"'`${1}{DATA}{SCRIPT}";

/// Two that share a lock, one that is cut by a deadline, one with a name that wants to be code, and a thread that sends.
fn trace() -> Trace {
    let options = Options { virtual_time: false, ..Options::default() };
    trefoil_runtime::run(Rc::new(ThreadDriver::new()), options, Location::caller(), async {
        let timeline = Timeline::record();
        let lock = &Mutex::new(());
        let (sender, receiver) = channel::<u8>(1);
        let receiver = &receiver;
        // It begins when the one that it feeds waits, for certain.
        let (go, went) = std::sync::mpsc::channel();
        let feed = move || {
            went.recv().unwrap();
            (0..5).for_each(|n| sender.send_blocking(n).unwrap());
        };
        let feeder = std::thread::Builder::new().name("feeder".into()).spawn(feed).unwrap();
        nursery(async |n| -> Result<(), Cancelled> {
            for name in ["Ada", "Bo"] {
                n.spawn_named(name, async move {
                    let _guard = lock.lock().await?;
                    sleep(Duration::from_millis(1)).await
                });
            }
            n.spawn_named("late", async move {
                move_on_after(Duration::from_millis(5), sleep_forever()).named("one call").await?;
                go.send(()).unwrap();
                Ok(())
            });
            n.spawn_named(HOSTILE, async {
                while receiver.recv().await?.is_some() {}
                Ok(())
            });
            Ok(())
        })
        .named("all")
        .await
        .unwrap();
        feeder.join().unwrap();
        timeline.stop()
    })
}

/// What a browser takes for the text of the script that begins so: up to the first end of one.
fn script<'a>(page: &'a str, begin: &str) -> &'a str {
    let text = page.split_once(begin).expect("the script is there").1;
    text.split_once("</script").expect("and ends").0
}

const DATA: &str = "<script type=\"application/json\" id=\"data\">";
const PROGRAM: &str = "<script type=\"module\">";

#[test]
fn names_do_not_become_part_of_the_page() {
    let page = trace().to_html();
    let scripts = page.match_indices("<script").count();
    assert_eq!((scripts, page.match_indices("</script").count()), (2, 2), "that of the data, and the program");
    assert!(!page.contains("<img") && !page.contains("alert(1)</"));
    let data: Value = serde_json::from_str(script(&page, DATA)).unwrap();
    assert!(data["tasks"].as_array().unwrap().iter().any(|task| task["n"] == HOSTILE), "and are shown as they are");
}

/// Also what a newer version of it might fetch: the policy forbids it.
#[test]
fn the_page_needs_no_other() {
    let page = trace().to_html();
    let page = page.replace(script(&page, DATA), "");
    assert!(page.contains("default-src 'none'"));
    assert!(
        !page.contains("http://") && !page.contains("https://") && !page.contains("src=") && !page.contains("@import")
    );
}

/// All of it would be megabytes.
#[test]
fn debug_says_how_much_there_is() {
    let text = format!("{:?}", trace());
    assert!(text.starts_with("Trace { length: ") && text.ends_with("dropped: 0 }") && text.len() < 200, "{text}");
    assert!(text.contains("tasks: 5, states: "), "{text}");
}

/// What the program takes for granted.
#[test]
fn the_data_are_rows_of_numbers_that_fit_together() {
    let page = trace().to_html();
    let data: Value = serde_json::from_str(script(&page, DATA)).unwrap();
    let list = |value: &Value| value.as_array().unwrap().iter().map(|n| n.as_i64().unwrap()).collect::<Vec<_>>();
    let (length, texts) = (data["length"].as_i64().unwrap(), data["texts"].as_array().unwrap().len() as i64);
    let (tasks, wakes) = (data["tasks"].as_array().unwrap(), list(&data["wakes"]));
    let sources = data["sources"].as_array().unwrap().len() as i64;
    assert_eq!(wakes.len() % 4, 0);
    for task in tasks {
        let (states, scopes) = (list(&task["s"]), list(&task["c"]));
        let mut at = 0;
        assert!(states.len().is_multiple_of(6) && scopes.len().is_multiple_of(6) && !states.is_empty());
        for state in states.chunks(6) {
            assert!([0, 1, 2, 4, 6].contains(&state[0]) && state[1] >= 0 && state[2] >= 0, "{state:?}");
            at += state[1] + state[2];
            assert!(state[3] < texts && state[4] <= wakes.len() as i64 / 4);
        }
        assert!(at <= length);
        for scope in scopes.chunks(6) {
            assert!(scope[0] + scope[1] <= length && scope[2] < texts && scope[3] <= texts, "{scope:?}");
        }
    }
    let mut before = 0;
    for wake in wakes.chunks(4) {
        assert!((-sources..tasks.len() as i64).contains(&wake[0]) && wake[1] <= length);
        let states = list(&tasks[wake[2] as usize]["s"]);
        assert_eq!(states[wake[3] as usize * 6] & 3, 0, "a wake leads to a poll");
        let begin: i64 = states.chunks(6).take(wake[3] as usize).map(|state| state[1] + state[2]).sum();
        let begin = begin + states[wake[3] as usize * 6 + 1];
        assert!(wake[1] <= begin && before <= begin, "in the order of the polls, which the program searches by");
        before = begin;
    }
}

/// Runs the program of a page, and then these steps of JavaScript; what each has come to.
fn run(page: &str, steps: &[&str]) -> Vec<String> {
    let runtime = Runtime::new().unwrap();
    let context = Context::full(&runtime).unwrap();
    context.with(|context| {
        let eval = |code: &str| {
            let result = context.eval::<rquickjs::Coerced<String>, _>(code).catch(&context);
            result.unwrap_or_else(|error| panic!("{error}\nin: {}", &code[..code.len().min(200)])).0
        };
        eval(include_str!("dom.js"));
        for id in page.split(" id=\"").skip(1).map(|rest| rest.split_once('"').unwrap().0) {
            let text = if id == "data" { script(page, DATA) } else { "" };
            eval(&format!("browser.add({}, {})", Value::from(id), Value::from(text)));
        }
        // As a module: its names are its own.
        eval(&format!("(() => {{ \"use strict\";\n{}\n}})()", script(page, PROGRAM)));
        steps.iter().map(|step| eval(step)).collect()
    })
}

#[test]
fn the_program_shows_what_there_is_and_follows_the_keys() {
    let page = trace().to_html();
    let said = run(
        &page,
        &[
            "browser.frame()",
            "browser.said('info')",
            // The second task, from its end back: who woke it, on that one's row.
            "browser.keys('ArrowDown', 'ArrowDown', 'ArrowRight', 'ArrowRight', 'ArrowRight', 'ArrowRight'); browser.said('details')",
            "browser.choose('search', 'input', 'one call'); browser.said('info')",
            "browser.keys('Escape', 'ArrowDown', 'ArrowLeft', 'ArrowLeft'); browser.said('details')",
            "browser.frame()",
            "browser.choose('search', 'input', 'a lock'); browser.said('info')",
            "browser.choose('search', 'input', 'nothing has this name'); browser.frame()",
            "browser.choose('search', 'input', ''); browser.said('info')",
            "browser.key('?'); browser.said('keys'), 'shown'",
        ],
    );
    // A label has its place, and its begin is what is shown of a long one.
    for text in ["Ada", "Bo", "late", &HOSTILE[..30], "deadlines", "thread `feeder`", "scope `one call` (page.rs:"] {
        assert!(said[0].contains(text), "{text}: {}", said[0]);
    }
    assert!(said[1].contains("5 tasks"), "{}", said[1]);
    assert!(said[2].contains("(page.rs:"), "{}", said[2]);
    assert!(said[3].starts_with("\n1 of 5 tasks") || said[3].starts_with("1 of 5 tasks"), "{}", said[3]);
    assert!(said[4].contains("late"), "{}", said[4]);
    assert!(said[5].contains("late") && !said[5].contains("Ada"), "{}", said[5]);
    assert!(said[6].contains("1 of 5") || said[6].contains("2 of 5"), "who waited for the lock: {}", said[6]);
    assert!(said[7].contains("no task matches the filter"), "{}", said[7]);
    assert!(said[8].contains("5 tasks") && !said[8].contains("of 5"), "{}", said[8]);
}

/// The life of one task, state by state, as it was; and from there to who woke it, and back.
#[test]
fn a_task_is_followed_from_state_to_state() {
    let walk = r#"
        browser.choose("search", "input", "bo (");
        browser.key("ArrowDown");
        for (let i = 0; i < 20; i++) browser.key("ArrowLeft");
        const said = [];
        for (let i = 0; i < 20 && said.at(-1) !== browser.said("details"); i++) {
            said.push(browser.said("details"));
            browser.key("ArrowRight");
        }
        JSON.stringify(said)
    "#;
    let there_and_back = r#"
        for (let i = 0; i < 3; i++) browser.key("ArrowLeft");
        const at = browser.said("details");
        browser.key("b");
        const there = browser.said("details");
        browser.key("n");
        JSON.stringify([at, there, browser.said("details")])
    "#;
    let said = run(&trace().to_html(), &[walk, there_and_back]);
    let states: Vec<String> = serde_json::from_str(&said[0]).unwrap();
    let expected = [
        "ready: it was woken",
        "polled: ",
        "waits for a lock at page.rs:",
        "ready: it was woken",
        "a lock at page.rs:",
        "sleeps at page.rs:",
        "ready: it was woken",
        "sleep at page.rs:",
    ];
    assert_eq!(states.len(), expected.len(), "{states:#?}");
    for (state, expected) in states.iter().zip(expected) {
        assert!(state.contains("Bo (page.rs:") && state.contains(expected), "{expected}: {state}");
    }
    assert!(states[4].contains("woken by Ada (page.rs:") && states[4].contains(": done after "), "{}", states[4]);
    assert!(states[5].contains("; due after "), "{}", states[5]);
    assert!(states[7].contains("woken by deadlines, "), "{}", states[7]);
    let [at, there, back] = serde_json::from_str::<[String; 3]>(&said[1]).unwrap();
    assert_eq!(at, states[4]);
    assert!(
        there.contains("Ada (page.rs:") && there.contains("polled: ") && there.contains("sleep at page.rs:"),
        "{there}"
    );
    assert_eq!(back, at);
}

/// What each of these steps leaves in sight of the whole, from 0 to 1; and what was in sight before.
fn sights(steps: &[&str]) -> Vec<[f64; 2]> {
    let mut all = vec!["JSON.stringify(browser.sight())".to_string()];
    all.extend(steps.iter().map(|step| format!("{step}; JSON.stringify(browser.sight())")));
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let said = run(&trace().to_html(), &all);
    let pixels: Vec<[f64; 2]> = said.iter().map(|said| serde_json::from_str(said).unwrap()).collect();
    let [left, right] = pixels[0];
    assert!(left > 0.0 && right == 1200.0, "all of it, beside the names: {pixels:?}");
    pixels.into_iter().map(|sight| sight.map(|px| (px - left) / (right - left))).collect()
}

fn same(one: [f64; 2], other: [f64; 2]) -> bool {
    one.iter().zip(other).all(|(one, other)| (one - other).abs() < 1e-6)
}

#[test]
fn two_fingers_zoom_around_what_is_between_them_and_move_it() {
    let down = "browser.point('pointerdown', 1, 700, 200); browser.point('pointerdown', 2, 800, 200)";
    // In the middle there is 750 before and after, though one moves after the other.
    let apart = "browser.point('pointermove', 1, 650, 200); browser.point('pointermove', 2, 850, 200)";
    let aside = "browser.point('pointermove', 1, 700, 200); browser.point('pointermove', 2, 900, 200)";
    let lift = "browser.point('pointerup', 2, 900, 200)";
    let drag = "browser.point('pointermove', 1, 710, 200)";
    let end = "browser.point('pointerup', 1, 710, 200)";
    let pixels = "JSON.stringify(browser.sight())";
    let left: [f64; 2] = serde_json::from_str(&run(&trace().to_html(), &[pixels])[0]).unwrap();
    let (left, across) = (left[0], 1200.0 - left[0]);
    let sights = sights(&[down, apart, aside, lift, drag, end]);
    let at = |sight: [f64; 2], px: f64| sight[0] + (sight[1] - sight[0]) * (px - left) / across;
    assert!(same(sights[1], sights[0]), "two that touch it do nothing: {sights:?}");
    let span = sights[2][1] - sights[2][0];
    assert!((span - 0.5).abs() < 1e-6, "twice as far apart: {sights:?}");
    assert!((at(sights[2], 750.0) - at(sights[0], 750.0)).abs() < 1e-6, "around the middle: {sights:?}");
    let moved = sights[2].map(|at| at - 50.0 / across * span);
    assert!(same(sights[3], moved), "moved by 50: {sights:?}");
    assert!(same(sights[4], sights[3]), "one is lifted: {sights:?}");
    assert!(same(sights[5], sights[4].map(|at| at - 10.0 / across * span)), "the other goes on: {sights:?}");
    assert!(same(sights[6], sights[5]), "{sights:?}");
}

/// One finger on the scale marks a range; with a second one it is no range any more. What is selected stays.
#[test]
fn a_pinch_that_begins_on_the_scale_is_one() {
    let pinch = "
        browser.keys('ArrowDown');
        globalThis.selected = browser.said('details');
        browser.point('pointerdown', 1, 500, 5);
        browser.point('pointermove', 1, 520, 5);
        browser.point('pointerdown', 2, 720, 5);
        browser.point('pointermove', 2, 920, 5)";
    let lift = "browser.point('pointerup', 2, 920, 5); browser.point('pointerup', 1, 520, 5)";
    let tap = "browser.point('pointerdown', 1, 500, 300); browser.point('pointerdown', 2, 600, 300); browser.point('pointerup', 1, 500, 300); browser.point('pointerup', 2, 600, 300)";
    let selected = "if (browser.said('details') !== globalThis.selected) throw new Error(browser.said('details'))";
    let cancelled = "browser.point('pointerdown', 1, 500, 5); browser.point('pointermove', 1, 600, 5); browser.point('pointercancel', 1, 600, 5)";
    let range = "browser.point('pointerdown', 1, 500, 5); browser.point('pointermove', 1, 600, 5); browser.point('pointerup', 1, 600, 5)";
    let sights = sights(&[pinch, lift, tap, selected, cancelled, range]);
    let span = |sight: [f64; 2]| sight[1] - sight[0];
    assert!((span(sights[1]) - 0.5).abs() < 1e-6, "{sights:?}");
    assert!(sights[2..6].iter().all(|sight| same(*sight, sights[1])), "{sights:?}");
    assert!(span(sights[6]) < 0.2 * span(sights[1]), "but one finger alone does: {sights:?}");
}

#[test]
fn keys_zoom_and_pan() {
    let sights = sights(&[
        "browser.key('+')",
        "browser.key('-')",
        "browser.keys('=', '=')",
        "browser.key('d')",
        "browser.key('a')",
        "browser.key('Home')",
        "browser.key('End')",
        "browser.key('0')",
    ]);
    let around = |part: f64| [0.5 - part / 2.0, 0.5 + part / 2.0];
    assert!(
        same(sights[1], around(0.7)) && same(sights[2], around(1.0)) && same(sights[3], around(0.49)),
        "{sights:?}"
    );
    assert!(same(sights[4], around(0.49).map(|at| at + 0.2 * 0.49)) && same(sights[5], sights[3]), "{sights:?}");
    assert!(same(sights[6], [0.0, 0.49]) && same(sights[7], [0.51, 1.0]) && same(sights[8], [0.0, 1.0]), "{sights:?}");
}

/// What the pointer stands over is told until something else is asked for, and does not cover that.
#[test]
fn the_tip_goes_when_a_key_is_pressed() {
    let tip = "!document.getElementById('tip').hidden";
    let point = format!(
        "browser.frame(); for (let y = 30; y < 300 && !({tip}); y += 5) browser.point('pointermove', 1, 700, y); {tip}"
    );
    let key = format!("browser.key('ArrowDown'); {tip}");
    assert_eq!(run(&trace().to_html(), &[&point, &key]), ["true", "false"]);
}

/// From row to row, and at the ends no further.
#[test]
fn arrows_go_up_and_down() {
    let walk = "
        const said = [];
        browser.key('ArrowDown');
        for (const key of ['ArrowUp', 'ArrowDown', 'ArrowDown', 'ArrowUp', 'ArrowUp', ...Array(9).fill('ArrowDown')]) {
            said.push(browser.said('details').trim().split('\\n')[0]);
            browser.key(key);
        }
        JSON.stringify(said)";
    let said: Vec<String> = serde_json::from_str(&run(&trace().to_html(), &[walk])[0]).unwrap();
    let said: Vec<&str> = said.iter().map(|said| said.split(" (page").next().unwrap()).collect();
    assert_eq!(said[..9], ["task 1", "task 1", "Ada", "Bo", "Ada", "task 1", "Ada", "Bo", "late"]);
    assert!(said[9..].iter().all(|last| *last == HOSTILE), "{said:?}");
}

/// From whom a poll came can be asked of every poll, there and back; whatever keys are pressed and wherever the pointer goes, nothing is drawn
/// at a place that is none, and nothing fails.
#[test]
fn the_program_takes_whatever_is_done_to_it() {
    let steps = r#"
        let seed = 1, woken = 0;
        const random = (n) => (seed = (seed * 48271) % 2147483647) % n;
        const keys = ["w", "s", "a", "d", "+", "-", "0", "ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End", "b", "n", "f", "Enter", "t", "Escape", "/", "x"];
        for (let i = 0; i < 500; i++) {
            const at = { offsetX: random(1300) - 50, offsetY: random(600) - 50, clientX: random(1300), clientY: random(700) };
            switch (random(8)) {
                case 0: browser.fire("view", "pointermove", at); break;
                case 1: browser.fire("view", "pointerdown", at); browser.fire("view", "pointermove", { ...at, offsetX: random(1300) }); browser.fire("view", random(2) ? "pointerup" : "pointercancel", at); break;
                case 2: browser.fire("view", "wheel", { ...at, deltaX: random(3) - 1, deltaY: random(2000) - 1000, deltaMode: random(2), ctrlKey: !random(2), shiftKey: !random(2) }); break;
                case 3: browser.fire("overview", "pointerdown", at); browser.fire("overview", "pointermove", { ...at, offsetX: random(1300) }); browser.fire("overview", "pointerup", at); break;
                case 4: browser.choose("order", "change", ["seen", "name", "polled", "ready", "polls"][random(5)]); browser.choose("arrows", "change", ["auto", "selected", "none"][random(3)]); break;
                case 5: browser.choose("search", "input", ["", "", "a", "late", "("][random(5)]); break;
                default: browser.key(keys[random(keys.length)]);
            }
            if (browser.said("details").includes("woken by")) woken++;
            browser.frame();
        }
        woken
    "#;
    let woken: u32 = run(&trace().to_html(), &[steps])[0].parse().unwrap();
    assert!(woken > 10, "who woke it was said {woken} times");
    // Also where there is next to nothing, and where the begin is lost.
    let empty = Trace::new(trefoil_runtime::Record::default()).to_html();
    assert!(run(&empty, &["browser.frame()", steps])[0].contains("nothing was recorded"));
}
