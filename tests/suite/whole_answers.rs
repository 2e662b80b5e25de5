//! Web servers that know no ranges, such as Python's `http.server`: whoever asks for one gets the whole file.

use std::fs;

use super::support::case::Workspace;
use super::support::dor::dor;
use super::support::web;

#[test]
fn raw_files_grids_and_results_are_read_from_a_server_without_ranges() {
    let work = Workspace::new(2);
    let run = |words: &str| {
        let output = dor(work.folder()).args(words.split(' ')).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert_eq!(output.status.code(), Some(0), "{words}: {said}");
        said
    };
    let web = web::serve_whole(work.folder());
    let convert = "research-data process-case 112-04 --allow-missing -d";
    run(&format!("{convert} archive --grid grid.nc -o out"));
    let said = run(&format!("{convert} {web}/archive --grid {web}/grid.nc -o from-web"));
    assert!(said.contains("does not support range requests"), "{said}");
    let results = |folder: &str| {
        let mut tree = work.tree(folder);
        tree.retain(|name, _| name.ends_with(".nc"));
        tree
    };
    assert!(results("out").len() == 2 && results("out") == results("from-web"));
    let said = run(&format!("research-data check 112-04 -o {web}/out"));
    assert!(said.contains("1 case as recorded"), "{said}");
    // Of both versions of the format; in the later one, chunks lie in shards.
    for (name, kind, of_maps, grid) in [
        ("s1", "store1", "", ""),
        ("v2", "store2", " --variables PH -l 1", " --grid grid.nc"),
        ("v3", "store2", " --variables PH -l 1 --zarr-format 3", " --grid grid.nc"),
    ] {
        let chunks = |name: &str| {
            let mut tree = work.tree(name);
            tree.retain(|name, _| !name.contains(".cases"));
            tree
        };
        for (beside, from) in [("here", "archive"), ("web", &*format!("{web}/archive"))] {
            let name = format!("{name}-{beside}");
            run(&format!("vis create-template-{kind} -o {name}{of_maps}"));
            let populate = format!("vis populate-{kind} -p 112 -m 4 --allow-missing");
            run(&format!("{populate} -o {name} --data-dir {from}{grid}"));
            run(&format!("vis finalize {name}"));
        }
        assert!(chunks(&format!("{name}-here")) == chunks(&format!("{name}-web")), "{name}");
        run(&format!("vis check {web}/{name}-web"));
    }
    run(&format!("vis plot {web}/v2-web --variable PH -p 112 -m 4 --step 0 -o map.png"));
    assert!(fs::metadata(work.path("map.png")).unwrap().len() > 1000);
}
