//! The profile `source-coop`, with servers that have the limits of Source Cooperative.

use std::fs;

use super::super::support::case::assert_same;
use super::super::support::proxy::Fault;
use super::for_each_server;

/// Size of a file in bytes: more than the server accepts in one request.
const LARGE: usize = 101_000_000;

#[test]
fn a_publish_with_profile_source_coop_stays_within_the_limits_of_the_service() {
    for_each_server(|fixture| {
        fixture.write_many(1_000, 500);
        fixture.write_large("site/large.nc", LARGE);
        fixture.server.drop_amazon_headers();
        // The limits: an occasional 520, 100 MB per request, and no DeleteObjects.
        let mut served = 0;
        fixture.server.fail_when(move |request| {
            served += 1;
            match request {
                _ if served % 1_000 == 0 => Some(Fault::Answer(520, "Unknown")),
                _ if request.length > 100_000_000 => Some(Fault::Answer(413, "EntityTooLarge")),
                _ if request.method == "POST" && request.target.contains("?delete") => {
                    Some(Fault::Answer(404, "NoSuchKey"))
                }
                _ => None,
            }
        });
        let publish = |more: &str| {
            let mut command = fixture.publish(more);
            command.env_remove("DOR_S3_PART_SIZE").args(["--profile", "source-coop"]);
            command.assert().success();
        };
        publish("");
        assert_same(&fixture.expected(), &fixture.published());
        let requests = fixture.server.requests();
        let is_part = |r: &&String| r.contains("large.nc") && r.contains("partNumber=");
        assert_eq!(requests.iter().filter(is_part).count(), LARGE.div_ceil(16 << 20));
        fs::remove_dir_all(fixture.work.path("site/many/00")).unwrap();
        publish("--delete --verify");
        assert_same(&fixture.expected(), &fixture.published());
    });
}
