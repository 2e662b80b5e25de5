//! A server that fails often.

use super::super::support::case::assert_same;
use super::super::support::proxy::Fault;
use super::{lines, on_all, seed};

const FAULTS: [(f64, Fault); 5] = [
    (0.10, Fault::Answer(503, "SlowDown")),
    (0.02, Fault::Cut),
    (0.01, Fault::Answer(520, "Unknown")),
    (0.01, Fault::Answer(200, "InternalError")),
    (0.01, Fault::Lost),
];

#[test]
fn a_busy_server_cut_connections_and_lost_answers_are_survived() {
    on_all(|bench| {
        bench.write_many(2_000, 500);
        let large = ["large-1.nc", "large-2.nc", "large-3.nc"];
        for name in large {
            bench.write_large(&format!("site/{name}"), 12 << 20);
        }
        bench.server.fail_by_chance(seed(), &FAULTS);
        let said = lines(&mut bench.publish("--json --verify all"));
        let summary = &said.last().unwrap()["summary"];
        assert!(summary["retried"].as_u64().unwrap() > 100, "{summary}");
        assert_eq!(summary["verified"]["wrong"], serde_json::json!([]));
        assert_same(&bench.expected(), &bench.published());
        if bench.server.is_minio() {
            // The embedded server cannot be asked for uploads whose beginning was not heard of.
            for name in large {
                assert_eq!(bench.server.unfinished(&format!("site/{name}")), [""; 0]);
            }
        }
        // Nothing is left to do.
        bench.server.recover();
        let said = lines(&mut bench.publish("--json --audit"));
        assert_eq!(said[0]["plan"]["new"]["objects"], 0);
        assert_eq!(said[0]["plan"]["changed"]["objects"], 0);
    });
}

#[test]
fn a_part_that_is_sent_again_is_a_try_of_its_object() {
    on_all(|bench| {
        bench.write_large("site/large.nc", 12 << 20);
        let mut left = 2;
        bench.server.fail_when(move |asked| {
            let fails = asked.target.contains("partNumber=2") && left > 0;
            left -= i32::from(fails);
            fails.then_some(Fault::Answer(503, "SlowDown"))
        });
        let said = lines(&mut bench.publish("--json --include **/large.nc"));
        // The answer may break the connection of another.
        assert!(said[1]["sent"]["attempts"].as_u64() >= Some(3), "{said:?}");
        assert_eq!(said[2]["summary"]["retried"], 1, "{said:?}");
    });
}

#[test]
fn a_lease_and_a_manifest_are_written_although_a_connection_is_lost() {
    // The client below gives up when it has waited for a busy server before, too.
    let busy = Fault::Answer(503, "SlowDown");
    for faults in [vec![Fault::Cut], vec![Fault::Lost], vec![busy, Fault::Cut, busy, Fault::Lost]] {
        on_all(|bench| {
            for name in ["lease.json", "manifest.jsonl.gz", "manifest.next.jsonl.gz"] {
                let mut faults = faults.clone().into_iter();
                bench.server.fail_when(move |asked| {
                    let is_written = asked.method == "PUT" && asked.target.contains(name);
                    if is_written { faults.next() } else { None }
                });
            }
            bench.publish("").assert().success();
            assert_same(&bench.expected(), &bench.published());
            bench.server.requests();
            bench.publish("").assert().success();
            assert!(!bench.has_changed_something());
        });
    }
}
