//! Publishing while cases are worked on.

use super::super::support::case::assert_same;
use super::super::support::dor::{dor, fails};
use super::super::support::proxy::Fault;
use super::{Bench, CONFIGURATION, on_all};

/// A command that publishes to the destination.
fn run(bench: &Bench, words: &str) -> assert_cmd::Command {
    let mut command = dor(bench.work.folder());
    command.envs(bench.server.variables()).args(words.split(' '));
    command.args(["--publish-to", &bench.destination()]);
    command
}

#[test]
fn finished_cases_go_out_while_others_are_worked_on() {
    on_all(|bench| {
        let mut raw = dor(bench.work.folder());
        raw.args(["demo", "raw", "whole", "--shape", "8x9x3", "--months", "180"]);
        raw.args(["--case", "007-10"]).assert().success();
        std::fs::remove_dir_all(bench.work.path("site")).unwrap();
        let convert =
            "research-data process-all-cases -d whole/archive --grid whole/grid.nc -o site";
        run(bench, convert).assert().success();
        let there = bench.published();
        assert_same(&bench.expected(), &there);
        assert_eq!(there.len(), 181);
        let part = "research-data process-case 112-04 --allow-missing -d archive -o site";
        run(bench, part).assert().success();
        assert_same(&bench.expected(), &bench.published());
    });
}

/// Creates the store of maps that a test fills.
fn create_template(bench: &Bench) {
    let create = "vis create-template-store2 -o site --variables PH -l 1";
    dor(bench.work.folder()).args(create.split(' ')).assert().success();
}

#[test]
fn maps_go_out_before_the_metadata_that_names_them() {
    on_all(|bench| {
        let expected = bench.expected();
        std::fs::remove_dir_all(bench.work.path("site")).unwrap();
        create_template(bench);
        let populate = "vis populate-store2 -o site -p 112 -m 4 --data-dir archive --allow-missing --grid grid.nc";
        run(bench, populate).assert().success();
        let chunks = bench.published();
        let is_of_case = |key: &String| key.contains("/PH/112.") || key.starts_with(".cases/");
        assert!(chunks.len() > 4 && chunks.keys().all(is_of_case), "{:?}", chunks.keys());
        run(bench, "vis finalize site").assert().success();
        let there = bench.published();
        assert_same(&bench.expected(), &there);
        assert!(there.len() > chunks.len() && there.len() < expected.len());
    });
}

#[test]
fn work_is_kept_when_it_cannot_be_published() {
    on_all(|bench| {
        std::fs::remove_dir_all(bench.work.path("site")).unwrap();
        let populate = "vis populate-store2 -o site -p 112 -m 4 --data-dir archive --allow-missing --grid grid.nc";
        create_template(bench);
        // What is wrong from the beginning is said before work is begun.
        let record = bench.work.path("site/.cases/112-04.json");
        let mut wrong = run(bench, populate);
        let error = fails(wrong.env("AWS_SECRET_ACCESS_KEY", "wrong"), CONFIGURATION);
        assert!(error.contains("credentials") && !record.exists(), "{error}");
        let denied = Fault::Answer(403, "AccessDenied");
        bench.server.fail_when(move |asked| (asked.method == "PUT").then_some(denied));
        let error = fails(&mut run(bench, populate), CONFIGURATION);
        assert!(error.contains("AccessDenied") && record.exists(), "{error}");
        assert!(bench.published().is_empty());
    });
}
