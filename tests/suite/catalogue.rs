//! `dor research-data list-cases`, `check` and `process-all-cases`.

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
fn research_command(folder: &Path, verb: &str, more: &[&str]) -> assert_cmd::Command {
    let mut command = dor(folder);
    command.args(["research-data", verb, "-d", "archive", "-o", "out"]).args(more);
    command
}

/// Writes raw files of one byte for the first `months` of each case; returns their number.
fn write_empty_archive(archive: &Path, cases: impl IntoIterator<Item = (Case, usize)>) -> usize {
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

/// A folder with an archive and an output in which the cases have four different states.
fn cases_in_four_states() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let cases = [("000-01", 180), ("112-04", 180), ("112-07", 3)].map(|(name, n)| (case(name), n));
    write_empty_archive(&folder.path().join("archive"), cases);
    fs::create_dir_all(folder.path().join("archive/smyle.cdr-atlas-v0.control.001/ocn/hist"))
        .unwrap();
    for (case_path, months, manifest) in
        [("112/04", 2, "manifest.partial.json"), ("112/07", 3, "manifest.json")]
    {
        let out = folder.path().join("out").join(case_path);
        fs::create_dir_all(&out).unwrap();
        let recipe = serde_json::json!(
            {"product": "research-grade", "version": 1, "grid_sha256": null}
        );
        let of = serde_json::json!(
            {
                "format": 2, "case": case_path, "recipe": recipe, "missing_months": [],
                "part_size": 16 << 20, "files": [],
            }
        );
        fs::write(out.join(manifest), of.to_string()).unwrap();
        let short = case_path.replace('/', "-");
        for month in case(&short).months().take(months) {
            let name =
                format!("smyle.cdr-atlas-v0.glb-dor.112-1999-{}.pop.h.{month}.nc", &case_path[4..]);
            fs::write(out.join(name), b"x").unwrap();
        }
    }
    folder
}

/// The lines that `list-cases` prints, with single spaces.
fn list_cases(folder: &Path, more: &[&str]) -> Vec<String> {
    let output = research_command(folder, "list-cases", more).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    String::from_utf8(output.stdout).unwrap().lines().map(words).collect()
}

#[test]
fn list_cases_shows_raw_and_output_counts_and_the_state() {
    let folder = cases_in_four_states();
    let lines = list_cases(folder.path(), &["-p", "112"]);
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
fn truncated_and_missing_outputs_are_found_by_list_cases_and_check() {
    let (work, cases) = three_cases(false);
    process_all(&work, &[]).assert().success();
    let (at, check_json) = (work.folder(), |more: &[&str]| {
        let mut command = dor(work.folder());
        command.args(["research-data", "check", "-o", "out", "--json"]).args(more);
        let output = command.output().unwrap();
        let rows: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code().unwrap(), rows)
    });
    let (code, rows) = check_json(&[]);
    assert_eq!((code, rows.as_array().unwrap().len(), &rows[0]["read"]), (0, 3, &2.into()));
    assert_eq!(check_json(&["--sample", "1"]).1[1]["read"], 1);

    // One file truncated, one removed, one with a changed byte, and one that no case manifest lists.
    let file = |case: Case, n: i32| {
        let short = case.short();
        let month = case.first_month().plus(n);
        let folder = work.path(&format!("out/{}", short.replace('-', "/")));
        let season = &short[4..];
        let polygon = &short[..3];
        folder.join(format!("smyle.cdr-atlas-v0.glb-dor.{polygon}-1999-{season}.pop.h.{month}.nc"))
    };
    let original = fs::read(file(cases[0], 0)).unwrap();
    fs::write(file(cases[0], 0), &original[..100]).unwrap();
    fs::remove_file(file(cases[0], 1)).unwrap();
    let mut bytes = fs::read(file(cases[1], 1)).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(file(cases[1], 1), bytes).unwrap();
    fs::write(file(cases[1], 2), b"x").unwrap();

    let lines = list_cases(at, &["-p", "3", "--month", "10"]);
    assert!(lines[1].ends_with(" damaged"), "{lines:?}");
    assert!(lines[2].contains("0347-10.nc has 100 bytes, recorded"), "{lines:?}");
    assert!(lines[3].ends_with("0347-11.nc is gone"), "{lines:?}");
    let damaged = list_cases(at, &["--state", "damaged"]);
    assert_eq!(damaged.iter().filter(|line| line.ends_with(" damaged")).count(), 1);

    let (code, rows) = check_json(&[]);
    assert_eq!(code, 65);
    let problems = |n: usize| rows[n]["problems"].as_array().unwrap().len();
    assert_eq!([0, 1, 2].map(problems), [2, 2, 0], "{rows}");
    let problem_text = rows[1]["problems"].to_string();
    assert!(problem_text.contains("0347-06.nc is not in the case manifest"), "{problem_text}");
    assert!(
        problem_text.contains("0347-05.nc has SHA-256 ") && problem_text.contains("recorded "),
        "{problem_text}"
    );
    // All sizes are compared, also those of files that --sample does not read.
    assert_eq!(check_json(&["--sample", "1", "003-10"]).0, 65);
    assert_eq!(check_json(&["689-01"]).0, 0);

    fs::remove_file(work.path("out/689/01/manifest.json")).unwrap();
    let mut check = dor(at);
    check.args(["research-data", "check", "689-01", "112-10", "-o", "out"]);
    let output = check.output().unwrap();
    assert_eq!(output.status.code(), Some(65));
    let stdout = String::from_utf8(output.stdout).unwrap();
    for named in ["689/01/manifest.json is not there", "112/10/manifest.json is not there"] {
        assert!(stdout.contains(named), "{stdout}");
    }
    let mut check = dor(at);
    fails(check.args(["research-data", "check", "-o", "elsewhere"]), 78);
}

#[test]
fn check_of_named_cases_works_over_http_without_a_listing() {
    let work = Workspace::new(2);
    work.convert();
    let at = format!("{}/out", web::serve(work.folder()));
    let check = |more: &[&str]| {
        let mut command = dor(work.folder());
        command.args(["research-data", "check", "-o", &at]).args(more);
        command.output().unwrap()
    };
    let output = check(&["112-04"]);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(printed.contains("1 case as recorded"), "{printed}{output:?}");
    let output = check(&[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && said.contains("name the cases"), "{said}");
}

#[test]
fn list_cases_selects_by_polygon_month_state_and_limit() {
    let folder = cases_in_four_states();
    let indexes = |more: &[&str]| -> Vec<String> {
        let lines = list_cases(folder.path(), more);
        let rows = lines[1..].iter().filter(|line| line.starts_with(|c: char| c.is_ascii_digit()));
        rows.filter(|line| !line.contains("--limit"))
            .map(|line| line.split(' ').next().unwrap().to_owned())
            .collect()
    };
    assert_eq!(indexes(&[]).len(), 10);
    assert_eq!(indexes(&["-l", "3"]), ["00000", "00001", "00002"]);
    assert!(list_cases(folder.path(), &["-l", "3"]).last().unwrap().starts_with("3 of 2760 cases"));
    assert_eq!(indexes(&["--limit", "0"]).len(), 2760);
    assert_eq!(indexes(&["-p", "112", "-p", "0", "--month", "4"]), ["00001", "00449"]);
    assert_eq!(indexes(&["--state", "raw"]), ["00000"]);
    assert_eq!(indexes(&["--state", "partial"]), ["00449"]);
    assert_eq!(indexes(&["--state", "done"]), ["00450"]);
    assert_eq!(indexes(&["--state", "missing", "-p", "112"]), ["00448", "00451"]);
    assert_eq!(indexes(&["--state", "missing", "-l", "0"]).len(), 2757);
    for wrong in [["-p", "690"], ["--month", "2"], ["--state", "odd"]] {
        fails(&mut research_command(folder.path(), "list-cases", &wrong), 2);
    }
}

#[test]
fn list_cases_prints_json() {
    let folder = cases_in_four_states();
    let cases = json(
        research_command(folder.path(), "list-cases", &["-p", "112", "--json", "-l", "2"])
            .arg("--verbose"),
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

/// Lists cases of a bucket; returns them and the number of requests, which must all be listings.
fn list_on_s3(server: &S3Server, more: &[&str]) -> (Vec<Value>, usize) {
    let folder = tempfile::tempdir().unwrap();
    let locations = [format!("s3://{BUCKET}/raw"), format!("s3://{BUCKET}/research")];
    let mut command = dor(folder.path());
    command.args([
        "research-data",
        "list-cases",
        "-d",
        &locations[0],
        "-o",
        &locations[1],
        "--json",
    ]);
    let cases = json(command.args(more).envs(server.variables()));
    let requests = server.requests();
    let listings = requests.iter().filter(|r| r.starts_with("GET") && r.contains("list-type=2"));
    assert_eq!(listings.count(), requests.len(), "{requests:?}");
    (cases.as_array().unwrap().clone(), requests.len())
}

#[test]
fn listing_the_whole_catalogue_takes_one_request_per_thousand_keys() {
    let server = S3Server::start();
    let keys =
        write_empty_archive(&server.bucket_folder().join("raw"), Case::all().map(|case| (case, 1)));
    assert_eq!(keys, 2760);
    let (cases, requests) = list_on_s3(&server, &["--limit", "0"]);
    let with_one = |case: &&Value| case["raw_files"] == 1 && case["state"] == "raw";
    assert_eq!(cases.iter().filter(with_one).count(), 2760);
    // One more request per thousand folders lists the top level of the archive.
    assert!(requests <= 2 * (keys / 1000 + 1) + 1, "{requests}");
}

#[test]
fn listing_a_few_cases_takes_two_requests_each() {
    let server = S3Server::start();
    write_empty_archive(
        &server.bucket_folder().join("raw"),
        Case::all().take(40).map(|case| (case, 2)),
    );
    let (cases, requests) = list_on_s3(&server, &["-p", "5"]);
    assert_eq!((cases.len(), &cases[3]["raw_files"]), (4, &2.into()));
    assert!(requests <= 8, "{requests}");
    let (cases, requests) = list_on_s3(&server, &["--state", "raw", "-l", "0"]);
    assert_eq!(cases.len(), 40);
    assert!(requests <= 3, "{requests}");
}

/// Three cases of two months; with `broken`, the files of the second case are truncated.
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
    let mut command = research_command(work.folder(), "process-all-cases", more);
    command.args(["--grid", "grid.nc", "--allow-missing"]);
    command
}

/// Folders of the cases that have a case manifest.
fn finished_cases(work: &Workspace) -> Vec<String> {
    let tree: Tree = tree(&work.path("out"));
    let records =
        tree.into_keys().filter_map(|key| Some(key.strip_suffix("/manifest.json")?.to_owned()));
    records.collect()
}

#[test]
fn process_all_cases_converts_at_most_max_cases_per_run() {
    let (work, _) = three_cases(false);
    let run = |more: &[&str]| {
        let output = process_all(&work, more).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let dry = run(&["--dry-run", "--max-cases", "2"]);
    let planned = "2 cases planned, 0 failed, 0 not tried, 1 left by --max-cases, \
                   2757 selected without raw files: 4 files to convert";
    assert!(dry.contains("2 files to convert") && dry.starts_with(planned), "{dry}");
    assert!(finished_cases(&work).is_empty());
    let first = run(&["--max-cases", "1"]);
    let all = "1 case done, 0 failed, 0 not tried, 2 left by --max-cases: 2 files converted";
    assert!(first.contains(all), "{first}");
    assert_eq!(finished_cases(&work), ["003/10"]);
    // Cases that are already done do not count for --max-cases.
    assert!(run(&["--max-cases", "1"]).contains("2 files converted, 2 kept"));
    assert_eq!(finished_cases(&work), ["003/10", "112/04"]);
    run(&["-p", "689", "--month", "1"]);
    assert_eq!(finished_cases(&work), ["003/10", "112/04", "689/01"]);
    let before = work.tree("out");
    assert!(run(&[]).contains("3 cases done, 0 failed, 0 not tried: 0 files converted, 6 kept"));
    assert_same(&before, &work.tree("out"));
    let error = fails(&mut process_all(&work, &["-p", "7"]), 65);
    assert!(error.contains("no case with raw files"), "{error}");
    for flag in ["--max-cases", "--workers"] {
        let error = fails(&mut process_all(&work, &[flag, "0"]), 2);
        assert!(error.contains(flag) && error.contains("a whole number, at least 1"), "{error}");
    }
}

#[test]
fn with_keep_going_a_broken_case_does_not_stop_the_others() {
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
    assert_eq!(finished_cases(&work), ["003/10", "689/01"]);
    assert!(!work.path("out/112").exists(), "files of the broken case were written");
}

#[test]
fn without_keep_going_a_broken_case_stops_the_run() {
    let (work, cases) = three_cases(true);
    // Only cases after the broken one: whether an earlier one finishes in time is not certain.
    let output = process_all(&work, &["-p", "112", "-p", "689"]).output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(out.contains("0 cases done, 1 failed, 1 not tried"), "{out}");
    assert!(out.contains(&format!("failed: {}", cases[1].short())), "{out}");
    assert!(!work.path("out/112").exists());
    assert!(tree(&work.path("out")).keys().all(|name| !name.ends_with(".staged")));
}

#[test]
fn a_missing_or_empty_archive_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    for reason in ["no such folder", "the folder is empty"] {
        for verb in ["list-cases", "process-all-cases"] {
            let error = fails(&mut research_command(folder.path(), verb, &[]), 78);
            assert!(error.contains("`archive`") && error.contains(reason), "{error}");
        }
        let mut one = dor(folder.path());
        one.args(["research-data", "process-case", "112-04", "-d", "archive", "-o", "out"]);
        let error = fails(&mut one, 78);
        assert!(error.contains("`archive`") && error.contains(reason), "{error}");
        fs::create_dir_all(folder.path().join("archive")).unwrap();
    }
    fs::create_dir(folder.path().join("archive/other")).unwrap();
    assert_eq!(list_cases(folder.path(), &["-p", "5"]).len(), 5);

    let server = S3Server::start();
    let list = |location: &str| {
        let mut command = dor(folder.path());
        command.args(["research-data", "list-cases", "-d", location]).envs(server.variables());
        fails(&mut command, 78)
    };
    let error = list("s3://nowhere/raw");
    assert!(error.contains("error: s3://nowhere/raw: there is no bucket `nowhere`"), "{error}");
    let location = format!("s3://{BUCKET}/nothing");
    let error = list(&location);
    assert!(error.contains(&location) && error.contains("no object"), "{error}");
}
