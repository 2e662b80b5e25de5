//! A filled case stays unchanged when inputs are touched or when settings differ.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::super::support::case::{Workspace, assert_same, set_age};
use super::super::support::dor::{dor, fails};
use super::support::{run_vis, vis_command};

/// A workspace with three months of a case, raw and research-grade.
fn workspace() -> Workspace {
    let work = Workspace::empty(b"");
    let mut raw = dor(work.folder());
    raw.args(["demo", "raw", ".", "--case", "112-04", "--shape", "8x9x3", "--ssh"]);
    raw.args(["--months", "3"]).assert().success();
    work.convert();
    work
}

fn run_dor(work: &Workspace, words: &str) {
    dor(work.folder()).args(words.split(' ')).assert().success();
}

/// Creates a template of each store.
fn make_templates(work: &Workspace) {
    for store in ["1", "2", "3"] {
        run_vis(work.folder(), &format!("create-template-store{store} -o s{store} --overwrite"));
    }
}

/// The commands that fill the stores from `input`.
fn fill_commands(input: &str) -> [String; 3] {
    let of = format!("-p 112 -m 4 --allow-missing {input}");
    [
        format!("populate-store1 -o s1 {of}"),
        format!("populate-store2 -o s2 {of} --grid grid.nc --ssh ssh.nc"),
        format!("populate-store3 -o s3 {of} --grid grid.nc --centers centers.csv"),
    ]
}

/// Inodes of all objects of a store except the case manifests.
fn object_inodes(store: &Path) -> BTreeMap<String, u64> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![store.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            match entry.path() {
                path if path.ends_with(".cases") => {}
                path if path.is_dir() => folders.push(path),
                path => {
                    let inode = entry.metadata().unwrap().ino();
                    found.insert(path.to_str().unwrap().to_owned(), inode);
                }
            }
        }
    }
    found
}

#[test]
fn a_case_is_not_filled_with_other_settings_than_the_other_cases_of_the_store() {
    let work = workspace();
    make_templates(&work);
    for fill in fill_commands("--data-dir archive") {
        run_vis(work.folder(), &fill);
    }
    let mut raw = dor(work.folder());
    raw.args(["demo", "raw", ".", "--case", "112-07", "--shape", "8x9x3", "--ssh"]);
    raw.args(["--months", "3"]).assert().success();
    let mut other = dor(work.folder());
    other.args([
        "demo", "raw", "other", "--shape", "8x9x3", "--ssh", "--months", "1", "--seed", "2",
    ]);
    other.assert().success();
    let centers = fs::read_to_string(work.path("centers.csv")).unwrap();
    let move_112 = |line| if str::starts_with(line, "112,") { "112,10,-5" } else { line };
    let moved: Vec<&str> = centers.lines().map(move_112).collect();
    fs::write(work.path("moved.csv"), moved.join("\n")).unwrap();
    let stores = ["s1", "s2", "s3"].map(|store| work.tree(store));
    let of = "-p 112 -m 7 --allow-missing --data-dir archive";
    for (fill, word) in [
        ("populate-store2 -o s2 --ssh ssh.nc", "grid: the case manifest has another grid file"),
        ("populate-store2 -o s2 --grid grid.nc --ssh other/ssh.nc", "sea surface height: "),
        (
            "populate-store3 -o s3 --centers centers.csv",
            "grid: the case manifest has another grid file",
        ),
        ("populate-store3 -o s3 --centers moved.csv --grid grid.nc", "center: "),
    ] {
        for dry in ["", " --dry-run"] {
            let error = fails(&mut vis_command(work.folder(), &format!("{fill} {of}{dry}")), 78);
            let parts =
                ["case 112-04 of the same store was made with other settings", word, "--force"];
            assert!(parts.iter().all(|part| error.contains(part)), "{fill}: {error}");
        }
    }
    assert_eq!(stores, ["s1", "s2", "s3"].map(|store| work.tree(store)));
    for fill in fill_commands("--data-dir archive") {
        run_vis(work.folder(), &fill.replace("-m 4", "-m 7"));
    }
}

#[test]
fn a_case_that_is_not_filled_to_its_end_stays_in_the_store() {
    let work = workspace();
    make_templates(&work);
    run_vis(work.folder(), &fill_commands("--data-dir archive")[1]);
    run_vis(work.folder(), "finalize s2");
    // What a process leaves that was killed while it replaced the result.
    let [done, partial] =
        ["112-04.json", "112-04.partial.json"].map(|name| work.path(&format!("s2/.cases/{name}")));
    fs::rename(&done, &partial).unwrap();
    let plot = "vis plot s2 --variable DIC -p 112 -m 4 --step 0 -o a.png";
    let error = fails(dor(work.folder()).args(plot.split(' ')), 65);
    assert!(error.contains("only a part of the new maps of case 112-04"), "{error}");
    let line = "not filled to their end: polygons 112 (month 4); populate them again";
    assert!(run_vis(work.folder(), "finalize s2").contains(line));
    let check = vis_command(work.folder(), "check s2").output().unwrap();
    let printed = String::from_utf8(check.stdout).unwrap();
    assert_eq!(check.status.code(), Some(65), "{printed}");
    assert!(printed.contains("have only a part of their new maps"), "{printed}");
    assert!(printed.contains(line) && !printed.contains("no part of the store"), "{printed}");
    let shared = fs::read_to_string(work.path("s2/.cases/shared.json")).unwrap();
    assert!(shared.contains("112-04"), "{shared}");
    run_vis(work.folder(), &fill_commands("--data-dir archive")[1]);
    let printed = run_vis(work.folder(), "finalize s2");
    assert!(done.exists() && !partial.exists() && !printed.contains("not filled"), "{printed}");
}

#[test]
fn touched_inputs_do_not_fill_a_case_again() {
    let work = workspace();
    let set_ages = |age: u64| {
        for n in 0..3 {
            set_age(&work.raw(n), age);
            set_age(&work.output(n), age);
        }
        for name in ["ssh.nc", "grid.nc", "centers.csv"] {
            set_age(&work.path(name), age);
        }
    };
    for input in ["--data-dir archive", "-i out"] {
        make_templates(&work);
        for command in fill_commands(input) {
            run_vis(work.folder(), &command);
        }
        let stores = || ["s1", "s2", "s3"].map(|store| object_inodes(&work.path(store)));
        let before = stores();
        set_ages(100);
        for command in fill_commands(input) {
            let stdout = run_vis(work.folder(), &command);
            assert!(stdout.contains("done before"), "{command}: {stdout}");
        }
        assert_eq!(stores(), before, "{input}");
        // The new times were recorded, so the content is not compared again.
        for command in fill_commands(input) {
            let output = vis_command(work.folder(), &command).arg("--verbose").output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                output.status.success() && !stderr.contains("its modification time differs"),
                "{stderr}"
            );
        }
        set_ages(0);
    }
}

#[test]
fn a_case_filled_with_other_settings_is_refused() {
    let work = workspace();
    make_templates(&work);
    let all = fill_commands("--data-dir archive");
    for command in &all {
        run_vis(work.folder(), command);
    }
    let centers = fs::read_to_string(work.path("centers.csv")).unwrap();
    let line = centers.lines().find(|line| line.starts_with("112,")).unwrap();
    let cells: Vec<&str> = line.split(',').collect();
    let moved = format!("112,{},{}", cells[1].parse::<f64>().unwrap() + 0.5, cells[2]);
    fs::write(work.path("moved.csv"), centers.replace(line, &moved)).unwrap();
    for name in ["grid.nc", "ssh.nc"] {
        let bytes = [&fs::read(work.path(name)).unwrap()[..], b"\0"].concat();
        fs::write(work.path(&format!("other-{name}")), bytes).unwrap();
    }
    let assert_refused = |command: String, word: &str| {
        let before = ["s1", "s2", "s3"].map(|store| work.tree(store));
        let error = fails(&mut vis_command(work.folder(), &command), 78);
        for expected in
            [word, "the case manifest has", "this run has", "--force", ".cases/112-04.json"]
        {
            assert!(error.contains(expected), "`{expected}` is missing in: {error}");
        }
        for (before, store) in before.iter().zip(["s1", "s2", "s3"]) {
            assert_same(before, &work.tree(store));
        }
    };
    let [curves, maps, shares] = &all;
    assert_refused(maps.replace(" --grid grid.nc", ""), "grid: ");
    assert_refused(maps.replace("grid.nc", "other-grid.nc"), "grid: ");
    assert_refused(maps.replace("ssh.nc", "other-ssh.nc"), "sea surface height: ");
    assert_refused(shares.replace(" --grid grid.nc", ""), "grid: ");
    assert_refused(shares.replace("centers.csv", "moved.csv"), "center: ");
    assert_refused(curves.replace("--data-dir archive", "-i out"), "kind of input: ");
    let forced = shares.replace("centers.csv", "moved.csv --force");
    assert!(!run_vis(work.folder(), &forced).contains("done before"));
}

#[test]
fn of_two_concurrent_processes_with_different_settings_one_fills_the_case() {
    let work = workspace();
    let centers = fs::read_to_string(work.path("centers.csv")).unwrap();
    fs::write(work.path("moved.csv"), centers.replace("\n112,", "\n112,-")).unwrap();
    let grid = [&fs::read(work.path("grid.nc")).unwrap()[..], b"\0"].concat();
    fs::write(work.path("other-grid.nc"), grid).unwrap();
    let [_, maps, shares] = fill_commands("--data-dir archive");
    let others = [
        (&maps, "s2", maps.replace("grid.nc", "other-grid.nc")),
        (&shares, "s3", shares.replace("centers.csv", "moved.csv")),
    ];
    for turn in 0..4 {
        make_templates(&work);
        for (one, store, other) in &others {
            let commands = if turn % 2 == 0 { [*one, other] } else { [other, *one] };
            let started = commands.map(|command| {
                let mut process = Command::new(env!("CARGO_BIN_EXE_dor"));
                process.arg("vis").args(command.split_whitespace()).current_dir(work.folder());
                process.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
            });
            let ended = started.map(|process| process.wait_with_output().unwrap());
            let codes = ended.each_ref().map(|ended| ended.status.code());
            let stderr = ended.each_ref().map(|ended| String::from_utf8_lossy(&ended.stderr));
            let winner = codes.iter().position(|code| *code == Some(0));
            assert!(codes.contains(&Some(78)), "{codes:?} {stderr:?}");
            let winner = commands[winner.unwrap_or_else(|| panic!("{codes:?} {stderr:?}"))];
            run_vis(work.folder(), &format!("finalize {store}"));
            run_vis(work.folder(), &format!("check {store}"));
            // The store is complete and has the values of the process that succeeded.
            let found = work.tree(store);
            assert!(run_vis(work.folder(), winner).contains("done before"), "{winner}");
            assert_same(&found, &work.tree(store));
            fs::remove_dir_all(work.path(store)).unwrap();
        }
    }
}

#[test]
fn of_two_concurrent_processes_with_different_inputs_one_fills_the_case() {
    let work = workspace();
    run_dor(&work, "demo raw other --case 112-04 --shape 8x9x3 --months 3 --seed 2");
    let maps = &fill_commands("--data-dir archive")[1];
    let others = maps.replace("--data-dir archive", "--data-dir other/archive");
    for turn in 0..4 {
        make_templates(&work);
        let commands = if turn % 2 == 0 { [maps, &others] } else { [&others, maps] };
        let started = commands.map(|command| {
            let mut process = Command::new(env!("CARGO_BIN_EXE_dor"));
            process.arg("vis").args(command.split_whitespace()).current_dir(work.folder());
            let process = process.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            std::thread::sleep(std::time::Duration::from_millis(150 * (turn / 2)));
            process
        });
        let ended = started.map(|process| process.wait_with_output().unwrap());
        let codes = ended.each_ref().map(|ended| ended.status.code());
        let stderr = ended.each_ref().map(|ended| String::from_utf8_lossy(&ended.stderr));
        assert!(codes.contains(&Some(0)), "{codes:?} {stderr:?}");
        assert!(codes.iter().all(|c| [Some(0), Some(78)].contains(c)), "{codes:?} {stderr:?}");
        run_vis(work.folder(), "finalize s2");
        run_vis(work.folder(), "check s2");
        fs::remove_dir_all(work.path("s2")).unwrap();
    }
}

#[test]
fn stores_are_not_filled_from_half_converted_research_grade_files() {
    let work = workspace();
    make_templates(&work);
    let folder = work.path("out/112/04");
    let [complete, partial] =
        ["manifest.json", "manifest.partial.json"].map(|name| folder.join(name));
    let refused = |words: &str| {
        for command in fill_commands("-i out") {
            let error = fails(&mut vis_command(work.folder(), &command), 65);
            assert!(error.contains(words) && error.contains("process-case 112-04"), "{error}");
        }
    };
    fs::rename(&complete, &partial).unwrap();
    refused("is not completely converted");
    fs::rename(&partial, &complete).unwrap();
    let whole = fs::read(work.output(1)).unwrap();
    fs::write(work.output(1), [&whole[..], b"\0"].concat()).unwrap();
    refused("is not as its case manifest tells: it has another size");
    fs::remove_file(work.output(1)).unwrap();
    refused("is not as its case manifest tells: it does not exist");
    // A file of another result with the same size.
    let mut other = whole.clone();
    *other.last_mut().unwrap() ^= 1;
    fs::write(work.output(1), other).unwrap();
    refused("it was written after the manifest and has another SHA-256");
    fs::write(work.output(1), whole).unwrap();
    for command in fill_commands("-i out") {
        run_vis(work.folder(), &command);
    }
}

#[test]
fn older_raw_files_do_not_replace_a_result_of_a_store() {
    let work = workspace();
    make_templates(&work);
    for command in fill_commands("--data-dir archive") {
        run_vis(work.folder(), &command);
    }
    run_dor(&work, "demo raw other --case 112-04 --shape 8x9x3 --months 3 --seed 2");
    let raw = work.archive().strip_prefix(work.path("archive")).unwrap().to_owned();
    for file in fs::read_dir(work.path("other/archive").join(raw)).unwrap() {
        set_age(&file.unwrap().path(), 0);
    }
    let before = work.tree("");
    // With missing months, store 3 has fill alone, which is the same result.
    let [one, maps, _] = fill_commands("--data-dir other/archive");
    for command in [one, maps] {
        let error = fails(&mut vis_command(work.folder(), &command), 78);
        assert!(error.contains("an older one with other content"), "{error}");
        assert_same(&before, &work.tree(""));
    }
    for command in fill_commands("--data-dir other/archive --force") {
        run_vis(work.folder(), &command);
    }
}

#[test]
fn a_case_of_another_model_grid_does_not_replace_a_result_nor_stand_beside_it() {
    let work = workspace();
    for case in ["112-04", "113-04"] {
        run_dor(&work, &format!("demo raw other --case {case} --shape 9x10x3 --months 3"));
    }
    make_templates(&work);
    let fill = |input: &str| {
        let of = format!("--allow-missing --data-dir {input}");
        [
            format!("populate-store1 -o s1 {of}"),
            format!("populate-store3 -o s3 {of} --centers centers.csv"),
        ]
    };
    for command in fill("archive -p 112 -m 4") {
        run_vis(work.folder(), &command);
    }
    let before = work.tree("");
    for (case, words) in
        [("112", "was made with other settings"), ("113", "case 112-04 of the same store")]
    {
        for command in fill(&format!("other/archive -p {case} -m 4")) {
            let error = fails(&mut vis_command(work.folder(), &command), 78);
            assert!(error.contains(words) && error.contains("model grid"), "{error}");
            assert!(error.contains("8 x 9 points"), "{error}");
        }
    }
    assert_same(&before, &work.tree(""));
}

#[test]
fn a_case_without_a_grid_file_is_filled_again_when_one_is_given() {
    let work = workspace();
    make_templates(&work);
    let [_, maps, shares] = fill_commands("--data-dir archive");
    for command in [maps, shares] {
        run_vis(work.folder(), &command.replace(" --grid grid.nc", ""));
        let manifest = || {
            let store = if command.contains("s2") { "s2" } else { "s3" };
            fs::read_to_string(work.path(store).join(".cases/112-04.json")).unwrap()
        };
        assert!(!manifest().contains("grid_sha256"));
        run_vis(work.folder(), &command);
        assert!(manifest().contains("grid_sha256"));
        assert!(run_vis(work.folder(), &command).contains("done before"));
    }
}
