//! Buckets with keys that `dor` cannot use: folder markers of consoles and keys with empty segments.

use std::process::Output;

use super::super::support::case::{Workspace, assert_same};
use super::super::support::dor::dor;
use super::super::support::proxy::Fault;
use super::super::support::s3::{BUCKET, S3Server};

/// Entries of a listing that the embedded server cannot store: two folder markers and a key with an empty
/// segment.
const INVALID_KEYS: &str = "<Contents><Key>raw/</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>\
<Size>0</Size></Contents><Contents><Key>raw/other//x.nc</Key><LastModified>2026-01-01T00:00:00.000Z\
</LastModified><Size>1</Size></Contents><Contents><Key>raw/empty/</Key><LastModified>\
2026-01-01T00:00:00.000Z</LastModified><Size>0</Size></Contents>";
/// The same for a listing with a delimiter: a common prefix with an empty segment.
const INVALID_PREFIXES: &str = "<CommonPrefixes><Prefix>raw//</Prefix></CommonPrefixes>";

/// Adds the invalid keys to every listing.
fn inject_invalid_keys(server: &S3Server) {
    server.recover();
    server.fail_when(|request| {
        let is_listing = request.target.contains("list-type=2");
        is_listing.then_some(Fault::ExtraListing(match request.target.contains("delimiter=") {
            true => INVALID_PREFIXES,
            false => INVALID_KEYS,
        }))
    });
}

fn stderr_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn invalid_keys_of_a_listing_are_skipped_and_reported_once() {
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
    inject_invalid_keys(&server);
    let location = format!("s3://{BUCKET}/raw");
    let run_dor = |words: &str| {
        let mut command = dor(work.folder());
        let words = words.replace("PLACE", &location);
        command.args(words.split(' ')).envs(server.variables());
        command.output().unwrap()
    };
    let convert = "process-all-cases -d PLACE -o new --allow-missing --grid grid.nc";
    let output = run_dor(&format!("research-data {convert}"));
    assert!(output.status.success(), "{}", stderr_of(&output));
    assert_eq!(stderr_of(&output).matches("skipped: 2 ").count(), 1, "{}", stderr_of(&output));
    // Only the number of files: the output records the time of its raw file, which the copy has changed.
    assert_eq!(expected.len(), work.tree("new").len());
    let output = run_dor("research-data list-cases -d PLACE -l 0");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1/180"), "{}", stderr_of(&output));
    // The bucket as a source and as a destination of a publish.
    let output = run_dor("publish PLACE copy --dry-run");
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", stderr_of(&output));
    assert!(stdout.contains("not published: 2 folder markers"), "{stdout}");
    assert!(stdout.contains("with a name that cannot be an object key"), "{stdout}");
    let keys_come_last = stdout.rfind("not published: ") < stdout.find("\nsend ");
    assert!(keys_come_last, "{stdout}");
    let output = run_dor("publish PLACE copy");
    assert!(output.status.success(), "{}", stderr_of(&output));
    let mut copy = work.tree("copy");
    copy.retain(|name, _| !name.starts_with(".dor"));
    assert_same(&work.tree("archive"), &copy);
    for more in ["", " --audit", " --audit --delete"] {
        let output = run_dor(&format!("publish out PLACE/raw{more}"));
        assert!(output.status.success(), "{}", stderr_of(&output));
    }
}
