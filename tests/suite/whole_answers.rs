//! Web servers without range requests, such as Python's `http.server`, which answer with the whole file.

use std::fs;

use super::support::case::Workspace;
use super::support::dor::dor;
use super::support::web;

#[test]
fn raw_files_grids_and_results_are_read_from_a_server_without_ranges() {
    let work = Workspace::new(2);
    let run = |words: &str| {
        let output = dor(work.folder()).args(words.split(' ')).output().unwrap();
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8_lossy(&printed).into_owned();
        assert_eq!(output.status.code(), Some(0), "{words}: {printed}");
        printed
    };
    let web = web::serve_whole(work.folder());
    let convert = "research-data process-case 112-04 --allow-missing -d";
    run(&format!("{convert} archive --grid grid.nc -o out"));
    let printed = run(&format!("{convert} {web}/archive --grid {web}/grid.nc -o from-web"));
    assert!(printed.contains("does not support range requests"), "{printed}");
    let results = |folder: &str| {
        let mut tree = work.tree(folder);
        tree.retain(|name, _| name.ends_with(".nc"));
        tree
    };
    assert!(results("out").len() == 2 && results("out") == results("from-web"));
    let printed = run(&format!("research-data check 112-04 -o {web}/out"));
    assert!(printed.contains("1 case as recorded"), "{printed}");
    // Both Zarr versions; in version 3, chunks are in shards.
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
        for (origin, from) in [("here", "archive"), ("web", &*format!("{web}/archive"))] {
            let name = format!("{name}-{origin}");
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
