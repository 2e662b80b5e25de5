//! Buckets with keys that are no objects of ours: made by consoles, other programs and old mistakes.

use std::process::Output;

use super::super::support::case::{Workspace, assert_same};
use super::super::support::dor::dor;
use super::super::support::proxy::Fault;
use super::super::support::s3::{BUCKET, S3Server};

/// What the server itself would not hold: keys with empty segments, and marks of folders.
const OTHERS: &str = "<Contents><Key>raw/</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>\
<Size>0</Size></Contents><Contents><Key>raw/other//x.nc</Key><LastModified>2026-01-01T00:00:00.000Z\
</LastModified><Size>1</Size></Contents><Contents><Key>raw/empty/</Key><LastModified>\
2026-01-01T00:00:00.000Z</LastModified><Size>0</Size></Contents>";
const OTHER_FOLDERS: &str = "<CommonPrefixes><Prefix>raw//</Prefix></CommonPrefixes>";

fn others(server: &S3Server) {
    server.recover();
    server.fail_when(|asked| {
        let listing = asked.target.contains("list-type=2");
        listing.then_some(Fault::Listed(match asked.target.contains("delimiter=") {
            true => OTHER_FOLDERS,
            false => OTHERS,
        }))
    });
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn keys_that_no_object_can_have_are_passed_over_and_told_once() {
    let work = Workspace::new(1);
    work.convert();
    let expected = work.tree("out");
    let server = S3Server::start();
    let raw = server.bucket_folder().join("raw");
    std::process::Command::new("cp")
        .arg("-r")
        .arg(work.path("archive"))
        .arg(&raw)
        .status()
        .unwrap();
    others(&server);
    let place = format!("s3://{BUCKET}/raw");
    let program = |words: &str| {
        let mut command = dor(work.folder());
        let words = words.replace("PLACE", &place);
        command.args(words.split(' ')).envs(server.variables());
        command.output().unwrap()
    };
    let convert = "process-all-cases -d PLACE -o new --allow-missing --grid grid.nc";
    let output = program(&format!("research-data {convert}"));
    assert!(output.status.success(), "{}", told(&output));
    assert_eq!(told(&output).matches("skipped: 2 ").count(), 1, "{}", told(&output));
    // The time of a raw file stands in its output.
    assert_eq!(expected.len(), work.tree("new").len());
    let output = program("research-data list-cases -d PLACE -l 0");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1/180"), "{}", told(&output));
    // As a source and as a destination.
    let output = program("publish PLACE copy --dry-run");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", told(&output));
    assert!(said.contains("not published: 2 folder markers"), "{said}");
    assert!(said.contains("with a name that cannot be an object key"), "{said}");
    assert!(said.rfind("not published: ") < said.find("\nsend "), "the keys come last: {said}");
    let output = program("publish PLACE copy");
    assert!(output.status.success(), "{}", told(&output));
    let mut copy = work.tree("copy");
    copy.retain(|name, _| !name.starts_with(".dor"));
    assert_same(&work.tree("archive"), &copy);
    for more in ["", " --audit", " --audit --delete"] {
        let output = program(&format!("publish out PLACE/raw{more}"));
        assert!(output.status.success(), "{}", told(&output));
    }
}
