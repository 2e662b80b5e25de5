//! `--publish-to`: conversions and map stores publish cases while they process others.

use super::super::support::case::assert_same;
use super::super::support::dor::{dor, fails};
use super::super::support::proxy::Fault;
use super::{CONFIGURATION, Fixture, for_each_server};

/// Fills the map store in `site` with the case `112-04`.
const POPULATE: &str = "vis populate-store2 -o site -p 112 -m 4 --data-dir archive --allow-missing \
                        --grid grid.nc";

/// The command `dor` with the arguments `words` and `--publish-to DESTINATION`.
fn dor_with_publish_to(fixture: &Fixture, words: &str) -> assert_cmd::Command {
    let mut command = dor(fixture.work.folder());
    command.envs(fixture.server.variables()).args(words.split(' '));
    command.args(["--publish-to", &fixture.destination()]);
    command
}

#[test]
fn conversions_publish_each_case_that_they_finish() {
    for_each_server(|fixture| {
        let mut raw = dor(fixture.work.folder());
        raw.args(["demo", "raw", "whole", "--shape", "8x9x3", "--months", "180"]);
        raw.args(["--case", "007-10"]).assert().success();
        std::fs::remove_dir_all(fixture.work.path("site")).unwrap();
        let convert =
            "research-data process-all-cases -d whole/archive --grid whole/grid.nc -o site";
        dor_with_publish_to(fixture, convert).assert().success();
        let published = fixture.published();
        assert_same(&fixture.expected(), &published);
        assert_eq!(published.len(), 181);
        let part = "research-data process-case 112-04 --allow-missing -d archive -o site";
        dor_with_publish_to(fixture, part).assert().success();
        assert_same(&fixture.expected(), &fixture.published());
    });
}

/// Creates an empty map store in `site`.
fn create_template(fixture: &Fixture) {
    let create = "vis create-template-store2 -o site --variables PH -l 1";
    dor(fixture.work.folder()).args(create.split(' ')).assert().success();
}

#[test]
fn populate_publishes_maps_and_finalize_publishes_the_metadata_that_names_them() {
    for_each_server(|fixture| {
        let expected = fixture.expected();
        std::fs::remove_dir_all(fixture.work.path("site")).unwrap();
        create_template(fixture);
        dor_with_publish_to(fixture, POPULATE).assert().success();
        let chunks = fixture.published();
        let is_of_case = |key: &String| key.contains("/PH/112.") || key.starts_with(".cases/");
        assert!(chunks.len() > 4 && chunks.keys().all(is_of_case), "{:?}", chunks.keys());
        dor_with_publish_to(fixture, "vis finalize site").assert().success();
        let published = fixture.published();
        assert_same(&fixture.expected(), &published);
        assert!(published.len() > chunks.len() && published.len() < expected.len());
    });
}

#[test]
fn results_are_kept_when_they_cannot_be_published() {
    for_each_server(|fixture| {
        std::fs::remove_dir_all(fixture.work.path("site")).unwrap();
        create_template(fixture);
        // Invalid credentials are reported before the case is processed.
        let case_manifest = fixture.work.path("site/.cases/112-04.json");
        let mut wrong = dor_with_publish_to(fixture, POPULATE);
        let error = fails(wrong.env("AWS_SECRET_ACCESS_KEY", "wrong"), CONFIGURATION);
        assert!(error.contains("credentials") && !case_manifest.exists(), "{error}");
        let denied = Fault::Answer(403, "AccessDenied");
        fixture.server.fail_when(move |request| (request.method == "PUT").then_some(denied));
        let error = fails(&mut dor_with_publish_to(fixture, POPULATE), CONFIGURATION);
        assert!(error.contains("AccessDenied") && case_manifest.exists(), "{error}");
        assert!(fixture.published().is_empty());
    });
}
