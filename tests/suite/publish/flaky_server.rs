//! Publishes to a server that fails often.

use super::super::support::case::assert_same;
use super::super::support::proxy::Fault;
use super::{for_each_server, json_lines, seed};

/// Faults and the share of the requests that each affects.
const FAULTS: [(f64, Fault); 5] = [
    (0.10, Fault::Answer(503, "SlowDown")),
    (0.02, Fault::Cut),
    (0.01, Fault::Answer(520, "Unknown")),
    (0.01, Fault::Answer(200, "InternalError")),
    (0.01, Fault::LostResponse),
];

#[test]
fn a_publish_succeeds_although_the_server_is_busy_and_connections_and_responses_are_lost() {
    for_each_server(|fixture| {
        fixture.write_many(2_000, 500);
        let large = ["large-1.nc", "large-2.nc", "large-3.nc"];
        for name in large {
            fixture.write_large(&format!("site/{name}"), 12 << 20);
        }
        fixture.server.fail_randomly(seed(), &FAULTS);
        let lines = json_lines(&mut fixture.publish("--json --verify all"));
        let summary = &lines.last().unwrap()["summary"];
        assert!(summary["retried"].as_u64().unwrap() > 100, "{summary}");
        assert_eq!(summary["verified"]["wrong"], serde_json::json!([]));
        assert_same(&fixture.expected(), &fixture.published());
        if fixture.server.is_minio() {
            // Not on the embedded server: it has no listing of unfinished uploads, so `dor` cannot abort an
            // upload whose id was in a lost response.
            for name in large {
                assert_eq!(fixture.server.unfinished(&format!("site/{name}")), [""; 0]);
            }
        }
        // An audit finds nothing to send.
        fixture.server.recover();
        let lines = json_lines(&mut fixture.publish("--json --audit"));
        assert_eq!(lines[0]["plan"]["new"]["objects"], 0);
        assert_eq!(lines[0]["plan"]["changed"]["objects"], 0);
    });
}

#[test]
fn a_retry_of_a_part_counts_as_an_attempt_of_its_object() {
    for_each_server(|fixture| {
        fixture.write_large("site/large.nc", 12 << 20);
        let mut left = 2;
        fixture.server.fail_when(move |request| {
            let fails = request.target.contains("partNumber=2") && left > 0;
            left -= i32::from(fails);
            fails.then_some(Fault::Answer(503, "SlowDown"))
        });
        let lines = json_lines(&mut fixture.publish("--json --include **/large.nc"));
        // At least: the early 503 may also break the connection of another part.
        assert!(lines[1]["sent"]["attempts"].as_u64() >= Some(3), "{lines:?}");
        assert_eq!(lines[2]["summary"]["retried"], 1, "{lines:?}");
    });
}

#[test]
fn lease_intent_and_manifest_are_written_although_connections_are_lost() {
    // Also with a 503 before the lost connection: `object_store` then does not retry, `dor` has to.
    let busy = Fault::Answer(503, "SlowDown");
    for faults in [
        vec![Fault::Cut],
        vec![Fault::LostResponse],
        vec![busy, Fault::Cut, busy, Fault::LostResponse],
    ] {
        for_each_server(|fixture| {
            for name in ["lease.json", "manifest.jsonl.gz", "manifest.next.jsonl.gz"] {
                let mut faults = faults.clone().into_iter();
                fixture.server.fail_when(move |request| {
                    let is_put = request.method == "PUT" && request.target.contains(name);
                    if is_put { faults.next() } else { None }
                });
            }
            fixture.publish("").assert().success();
            assert_same(&fixture.expected(), &fixture.published());
            fixture.server.requests();
            fixture.publish("").assert().success();
            assert!(!fixture.has_changed_objects());
        });
    }
}
