//! A server with the habits of Source Cooperative.

use std::fs;

use super::super::support::case::assert_same;
use super::super::support::proxy::Fault;
use super::on_all;

/// More than the server takes in one request.
const LARGE: usize = 101_000_000;

#[test]
fn a_server_like_source_cooperative_gets_what_it_can_take() {
    on_all(|bench| {
        bench.write_many(1_000, 500);
        bench.write_large("site/large.nc", LARGE);
        bench.server.drop_amazon_headers();
        let mut served = 0;
        bench.server.fail_when(move |asked| {
            served += 1;
            match asked {
                _ if served % 1_000 == 0 => Some(Fault::Answer(520, "Unknown")),
                _ if asked.length > 100_000_000 => Some(Fault::Answer(413, "EntityTooLarge")),
                _ if asked.method == "POST" && asked.target.contains("?delete") => {
                    Some(Fault::Answer(404, "NoSuchKey"))
                }
                _ => None,
            }
        });
        let publish = |more: &str| {
            let mut command = bench.publish(more);
            command.env_remove("DOR_S3_PART_SIZE").args(["--profile", "source-coop"]);
            command.assert().success();
        };
        publish("");
        assert_same(&bench.expected(), &bench.published());
        let requests = bench.server.requests();
        let is_part = |r: &&String| r.contains("large.nc") && r.contains("partNumber=");
        assert_eq!(requests.iter().filter(is_part).count(), LARGE.div_ceil(16 << 20));
        fs::remove_dir_all(bench.work.path("site/many/00")).unwrap();
        publish("--delete --verify");
        assert_same(&bench.expected(), &bench.published());
    });
}
