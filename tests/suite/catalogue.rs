//! `list-cases` and `process-all-cases`: many cases.

use std::fs;
use std::path::Path;

use dor_atlas::model::Case;
use dor_atlas::synthetic::SyntheticCase;
use serde_json::Value;

use super::support::case::{TINY, Tree, Workspace, assert_same, tree, write_dated};
use super::support::dor::{dor, fails, json};
use super::support::s3::{BUCKET, S3Server};
use super::support::web;

/// `dor research-data VERB` from `archive` to `out` in `folder`.
fn research(folder: &Path, verb: &str, more: &[&str]) -> assert_cmd::Command {
    let mut command = dor(folder);
    command.args(["research-data", verb, "-d", "archive", "-o", "out"]).args(more);
    command
}

/// An archive of names: the first `months` of each case, without content.
fn names(archive: &Path, cases: impl IntoIterator<Item = (Case, usize)>) -> usize {
    let mut count = 0;
    for (case, months) in cases {
        let folder = archive.join(format!("{case}/ocn/hist"));
        fs::create_dir_all(&folder).unwrap();
        for month in case.months().take(months) {
            fs::write(folder.join(format!("{case}.pop.h.{month}.nc")), b"x").unwrap();
            count += 1;
        }
    }
    count
}

fn case(name: &str) -> Case {
    name.parse().unwrap()
}

/// Four cases, each in another state.
fn four_states() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let cases = [("000-01", 180), ("112-04", 180), ("112-07", 3)].map(|(name, n)| (case(name), n));
    names(&folder.path().join("archive"), cases);
    fs::create_dir_all(folder.path().join("archive/smyle.cdr-atlas-v0.control.001/ocn/hist"))
        .unwrap();
    for (place, months, record) in
        [("112/04", 2, "manifest.partial.json"), ("112/07", 3, "manifest.json")]
    {
        let out = folder.path().join("out").join(place);
        fs::create_dir_all(&out).unwrap();
        let recipe = serde_json::json!(
            {"product": "research-grade", "version": 1, "grid_sha256": null}
        );
        let of = serde_json::json!(
            {
                "format": 2, "case": place, "recipe": recipe, "missing_months": [],
                "part_size": 16 << 20, "files": [],
            }
        );
        fs::write(out.join(record), of.to_string()).unwrap();
        let short = place.replace('/', "-");
        for month in case(&short).months().take(months) {
            let name =
                format!("smyle.cdr-atlas-v0.glb-dor.112-1999-{}.pop.h.{month}.nc", &place[4..]);
            fs::write(out.join(name), b"x").unwrap();
        }
    }
    folder
}

fn table(folder: &Path, more: &[&str]) -> Vec<String> {
    let output = research(folder, "list-cases", more).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    String::from_utf8(output.stdout).unwrap().lines().map(words).collect()
}

#[test]
fn the_table_shows_what_exists_of_each_case() {
    let folder = four_states();
    let lines = table(folder.path(), &["-p", "112"]);
    let expected = [
        "INDEX BASIN POLYGON DATE RAW OUTPUT STATE",
        "00448 North_Atlantic_basin 112 1999-01-01 0/180 0/180 missing",
        "00449 North_Atlantic_basin 112 1999-04-01 180/180 2/180 partial",
        "00450 North_Atlantic_basin 112 1999-07-01 3/180 3/180 done",
        "00451 North_Atlantic_basin 112 1999-10-01 0/180 0/180 missing",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn outputs_that_are_cut_or_gone_are_shown_and_found_by_a_check() {
    let (work, cases) = three_cases(false);
    process_all(&work, &[]).assert().success();
    let (at, json_of) = (work.folder(), |more: &[&str]| {
        let mut command = dor(work.folder());
        command.args(["research-data", "check", "-o", "out", "--json"]).args(more);
        let output = command.output().unwrap();
        let rows: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code().unwrap(), rows)
    });
    let (code, rows) = json_of(&[]);
    assert_eq!((code, rows.as_array().unwrap().len(), &rows[0]["read"]), (0, 3, &2.into()));
    assert_eq!(json_of(&["--sample", "1"]).1[1]["read"], 1);

    // One file cut, one gone, one with a byte that is another, one that no record tells of.
    let file = |case: Case, n: i32| {
        let short = case.short();
        let month = case.first_month().plus(n);
        let folder = work.path(&format!("out/{}", short.replace('-', "/")));
        let season = &short[4..];
        let polygon = &short[..3];
        folder.join(format!("smyle.cdr-atlas-v0.glb-dor.{polygon}-1999-{season}.pop.h.{month}.nc"))
    };
    let whole = fs::read(file(cases[0], 0)).unwrap();
    fs::write(file(cases[0], 0), &whole[..100]).unwrap();
    fs::remove_file(file(cases[0], 1)).unwrap();
    let mut bytes = fs::read(file(cases[1], 1)).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(file(cases[1], 1), bytes).unwrap();
    fs::write(file(cases[1], 2), b"x").unwrap();

    let lines = table(at, &["-p", "3", "--month", "10"]);
    assert!(lines[1].ends_with(" damaged"), "{lines:?}");
    assert!(lines[2].contains("0347-10.nc has 100 bytes, recorded"), "{lines:?}");
    assert!(lines[3].ends_with("0347-11.nc is gone"), "{lines:?}");
    let damaged = table(at, &["--state", "damaged"]);
    assert_eq!(damaged.iter().filter(|line| line.ends_with(" damaged")).count(), 1);

    let (code, rows) = json_of(&[]);
    assert_eq!(code, 65);
    let problems = |n: usize| rows[n]["problems"].as_array().unwrap().len();
    assert_eq!([0, 1, 2].map(problems), [2, 2, 0], "{rows}");
    let said = rows[1]["problems"].to_string();
    assert!(said.contains("0347-06.nc is not in the record"), "{said}");
    assert!(said.contains("0347-05.nc has SHA-256 ") && said.contains("recorded "), "{said}");
    // The sizes of all are compared, whatever is read.
    assert_eq!(json_of(&["--sample", "1", "003-10"]).0, 65);
    assert_eq!(json_of(&["689-01"]).0, 0);

    fs::remove_file(work.path("out/689/01/manifest.json")).unwrap();
    let mut check = dor(at);
    check.args(["research-data", "check", "689-01", "112-10", "-o", "out"]);
    let output = check.output().unwrap();
    assert_eq!(output.status.code(), Some(65));
    let said = String::from_utf8(output.stdout).unwrap();
    for named in ["689/01/manifest.json is not there", "112/10/manifest.json is not there"] {
        assert!(said.contains(named), "{said}");
    }
    let mut check = dor(at);
    fails(check.args(["research-data", "check", "-o", "elsewhere"]), 78);
}

#[test]
fn a_check_needs_no_listing() {
    let work = Workspace::new(2);
    work.convert();
    let at = format!("{}/out", web::serve(work.folder()));
    let check = |more: &[&str]| {
        let mut command = dor(work.folder());
        command.args(["research-data", "check", "-o", &at]).args(more);
        command.output().unwrap()
    };
    let output = check(&["112-04"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("1 case as recorded"), "{said}{output:?}");
    let output = check(&[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(78) && said.contains("name the cases"), "{said}");
}

#[test]
fn filters_states_and_limits_choose_cases() {
    let folder = four_states();
    let indexes = |more: &[&str]| -> Vec<String> {
        let lines = table(folder.path(), more);
        let rows = lines[1..].iter().filter(|line| line.starts_with(|c: char| c.is_ascii_digit()));
        rows.filter(|line| !line.contains("--limit"))
            .map(|line| line.split(' ').next().unwrap().to_owned())
            .collect()
    };
    assert_eq!(indexes(&[]).len(), 10);
    assert_eq!(indexes(&["-l", "3"]), ["00000", "00001", "00002"]);
    assert!(table(folder.path(), &["-l", "3"]).last().unwrap().starts_with("3 of 2760 cases"));
    assert_eq!(indexes(&["--limit", "0"]).len(), 2760);
    assert_eq!(indexes(&["-p", "112", "-p", "0", "--month", "4"]), ["00001", "00449"]);
    assert_eq!(indexes(&["--state", "raw"]), ["00000"]);
    assert_eq!(indexes(&["--state", "partial"]), ["00449"]);
    assert_eq!(indexes(&["--state", "done"]), ["00450"]);
    assert_eq!(indexes(&["--state", "missing", "-p", "112"]), ["00448", "00451"]);
    assert_eq!(indexes(&["--state", "missing", "-l", "0"]).len(), 2757);
    for wrong in [["-p", "690"], ["--month", "2"], ["--state", "odd"]] {
        fails(&mut research(folder.path(), "list-cases", &wrong), 2);
    }
}

#[test]
fn the_same_as_json() {
    let folder = four_states();
    let cases = json(
        research(folder.path(), "list-cases", &["-p", "112", "--json", "-l", "2"]).arg("--verbose"),
    );
    let expected = serde_json::json!({
        "case": "smyle.cdr-atlas-v0.glb-dor_North_Atlantic_basin_112_1999-04-01_00449.001",
        "index": 449,
        "basin": "North_Atlantic_basin",
        "polygon": 112,
        "date": "1999-04-01",
        "raw_files": 180,
        "output_files": 2,
        "state": "partial",
    });
    assert_eq!((cases.as_array().unwrap().len(), &cases[1]), (2, &expected));
}

/// Lists cases of a bucket; gives them, and the requests that it took: listings only.
fn list_on_s3(server: &S3Server, more: &[&str]) -> (Vec<Value>, usize) {
    let folder = tempfile::tempdir().unwrap();
    let places = [format!("s3://{BUCKET}/raw"), format!("s3://{BUCKET}/research")];
    let mut command = dor(folder.path());
    command.args(["research-data", "list-cases", "-d", &places[0], "-o", &places[1], "--json"]);
    let cases = json(command.args(more).envs(server.variables()));
    let requests = server.requests();
    let listings = requests.iter().filter(|r| r.starts_with("GET") && r.contains("list-type=2"));
    assert_eq!(listings.count(), requests.len(), "{requests:?}");
    (cases.as_array().unwrap().clone(), requests.len())
}

#[test]
fn the_whole_catalogue_costs_a_request_for_a_thousand_keys() {
    let server = S3Server::start();
    let keys = names(&server.bucket_folder().join("raw"), Case::all().map(|case| (case, 1)));
    assert_eq!(keys, 2760);
    let (cases, requests) = list_on_s3(&server, &["--limit", "0"]);
    let with_one = |case: &&Value| case["raw_files"] == 1 && case["state"] == "raw";
    assert_eq!(cases.iter().filter(with_one).count(), 2760);
    // One for a thousand folders tells whether only cases lie there.
    assert!(requests <= 2 * (keys / 1000 + 1) + 1, "{requests}");
}

#[test]
fn a_few_cases_cost_two_requests_each() {
    let server = S3Server::start();
    names(&server.bucket_folder().join("raw"), Case::all().take(40).map(|case| (case, 2)));
    let (cases, requests) = list_on_s3(&server, &["-p", "5"]);
    assert_eq!((cases.len(), &cases[3]["raw_files"]), (4, &2.into()));
    assert!(requests <= 8, "{requests}");
    let (cases, requests) = list_on_s3(&server, &["--state", "raw", "-l", "0"]);
    assert_eq!(cases.len(), 40);
    assert!(requests <= 3, "{requests}");
}

/// Three cases of two months; the second is broken when asked for.
fn three_cases(broken: bool) -> (Workspace, [Case; 3]) {
    let cases = ["003-10", "112-04", "689-01"].map(case);
    let work = Workspace::empty(&SyntheticCase::new(cases[0], TINY, 1).grid_file());
    for (n, case) in cases.into_iter().enumerate() {
        let synthetic = SyntheticCase::new(case, TINY, 1);
        let folder = work.path(&format!("archive/{case}/ocn/hist"));
        fs::create_dir_all(&folder).unwrap();
        for month in case.months().take(2) {
            let mut bytes = Vec::new();
            synthetic.write_month(month, &mut bytes).unwrap();
            if broken && n == 1 {
                bytes.truncate(3000);
            }
            write_dated(&folder.join(synthetic.file_name(month)), &bytes);
        }
    }
    (work, cases)
}

fn process_all(work: &Workspace, more: &[&str]) -> assert_cmd::Command {
    let mut command = research(work.folder(), "process-all-cases", more);
    command.args(["--grid", "grid.nc", "--allow-missing"]);
    command
}

/// Folders of the cases whose record is there.
fn done(work: &Workspace) -> Vec<String> {
    let tree: Tree = tree(&work.path("out"));
    let records =
        tree.into_keys().filter_map(|key| Some(key.strip_suffix("/manifest.json")?.to_owned()));
    records.collect()
}

#[test]
fn all_cases_with_raw_files_are_processed_a_few_at_a_time() {
    let (work, _) = three_cases(false);
    let said = |more: &[&str]| {
        let output = process_all(&work, more).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let dry = said(&["--dry-run", "--max-cases", "2"]);
    let planned = "2 cases planned, 0 failed, 0 not tried, 1 left by --max-cases, \
                   2757 selected without raw files: 4 files to convert";
    assert!(dry.contains("2 files to convert") && dry.starts_with(planned), "{dry}");
    assert!(done(&work).is_empty());
    let first = said(&["--max-cases", "1"]);
    let all = "1 case done, 0 failed, 0 not tried, 2 left by --max-cases: 2 files converted";
    assert!(first.contains(all), "{first}");
    assert_eq!(done(&work), ["003/10"]);
    // Cases that are done do not count.
    assert!(said(&["--max-cases", "1"]).contains("2 files converted, 2 kept"));
    assert_eq!(done(&work), ["003/10", "112/04"]);
    said(&["-p", "689", "--month", "1"]);
    assert_eq!(done(&work), ["003/10", "112/04", "689/01"]);
    let before = work.tree("out");
    assert!(said(&[]).contains("3 cases done, 0 failed, 0 not tried: 0 files converted, 6 kept"));
    assert_same(&before, &work.tree("out"));
    let error = fails(&mut process_all(&work, &["-p", "7"]), 65);
    assert!(error.contains("no case with raw files"), "{error}");
    for flag in ["--max-cases", "--workers"] {
        let error = fails(&mut process_all(&work, &[flag, "0"]), 2);
        assert!(error.contains(flag) && error.contains("a whole number, at least 1"), "{error}");
    }
}

#[test]
fn with_keep_going_a_broken_case_holds_up_no_other() {
    let (work, cases) = three_cases(true);
    let output = process_all(&work, &["--keep-going"]).output().unwrap();
    let (out, error) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(out.contains("2 cases done, 1 failed, 0 not tried"), "{out}");
    let last = out.lines().last().unwrap();
    assert!(last.starts_with(&format!("failed: {}: ", cases[1].short())), "{last}");
    assert!(last.contains("0347-04.nc") && last.contains("truncated"), "{last}");
    assert!(last.ends_with("(and 1 more)"), "{last}");
    for word in ["0347-04.nc", "0347-05.nc", "truncated"] {
        assert!(error.contains(word), "{word}: {error}");
    }
    assert_eq!(done(&work), ["003/10", "689/01"]);
    assert!(!work.path("out/112").exists(), "nothing is written of the broken case");
}

#[test]
fn without_it_the_first_broken_case_is_the_last() {
    let (work, cases) = three_cases(true);
    // One after the other is certain only for what has not begun.
    let output = process_all(&work, &["-p", "112", "-p", "689"]).output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(out.contains("0 cases done, 1 failed, 1 not tried"), "{out}");
    assert!(out.contains(&format!("failed: {}", cases[1].short())), "{out}");
    assert!(!work.path("out/112").exists());
    assert!(tree(&work.path("out")).keys().all(|name| !name.ends_with(".staged")));
}

#[test]
fn a_place_that_is_not_there_has_no_cases_to_list() {
    let folder = tempfile::tempdir().unwrap();
    for verb in ["list-cases", "process-all-cases"] {
        let error = fails(&mut research(folder.path(), verb, &[]), 78);
        assert!(error.contains("`archive`") && error.contains("no such folder"), "{error}");
    }
    let mut one = dor(folder.path());
    one.args(["research-data", "process-case", "112-04", "-d", "archive", "-o", "out"]);
    let error = fails(&mut one, 78);
    assert!(error.contains("`archive`") && error.contains("no such folder"), "{error}");
    fs::create_dir(folder.path().join("archive")).unwrap();
    assert_eq!(table(folder.path(), &["-p", "5"]).len(), 5);

    let server = S3Server::start();
    let list = |place: &str| {
        let mut command = dor(folder.path());
        command.args(["research-data", "list-cases", "-d", place]).envs(server.variables());
        fails(&mut command, 78)
    };
    let error = list("s3://nowhere/raw");
    assert!(error.contains("error: s3://nowhere/raw: there is no bucket `nowhere`"), "{error}");
    let place = format!("s3://{BUCKET}/nothing");
    let error = list(&place);
    assert!(error.contains(&place) && error.contains("no object"), "{error}");
}
