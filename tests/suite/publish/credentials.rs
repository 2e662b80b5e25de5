//! Temporary credentials that expire during a publish.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant, SystemTime};

use super::super::support::case::assert_same;
use super::super::support::proxy::Fault;
use super::for_each_direct_server;

/// Lifetime of the credentials, in seconds.
const LIFETIME: u64 = 20;
/// Shortest duration of the publish, in seconds; `--bwlimit` enforces it.
const DURATION: u64 = 120;
const OBJECTS: u64 = 120;
/// Size of an object, in bytes.
const SIZE: u64 = 20_000;

#[test]
fn credentials_are_renewed_once_per_expiry() {
    // Not with Source Cooperative, which issues temporary credentials itself.
    for_each_direct_server(|fixture| {
        fixture.write_many(OBJECTS as usize, SIZE as usize);
        let variables = fixture.server.variables();
        let value_of =
            |name: &str| variables.iter().find(|(known, _)| *known == name).unwrap().1.clone();
        let (key, secret) = (value_of("AWS_ACCESS_KEY_ID"), value_of("AWS_SECRET_ACCESS_KEY"));
        // MinIO issues temporary credentials that are valid for 900 seconds at least, and the embedded
        // server ignores session tokens. So the fault proxy rejects tokens older than
        // `LIFETIME`.
        let issue = match fixture.server.is_minio() {
            true => format!(
                "answer=$(curl --silent --fail --aws-sigv4 aws:amz:us-east-1:sts --user {key}:{secret} \
                 -d 'Action=AssumeRole&Version=2011-06-15&DurationSeconds=900' {})\n\
                 of() {{ echo \"$answer\" | sed -n \"s:.*<$1>\\(.*\\)</$1>.*:\\1:p\"; }}\n\
                 key=$(of AccessKeyId) secret=$(of SecretAccessKey) token=$(of SessionToken)\n",
                fixture.server.endpoint
            ),
            false => format!("key={key} secret={secret} token=made-$$\n"),
        };
        let script = format!(
            "#!/bin/sh\nset -e\n{issue}until=$(($(date +%s) + {LIFETIME}))\n\
             echo \"$token $until\" >> given\n\
             cat <<END\n\
             {{\"Version\": 1, \"AccessKeyId\": \"$key\", \"SecretAccessKey\": \"$secret\", \
             \"SessionToken\": \"$token\", \"Expiration\": \"$(date -u -d @$until +%Y-%m-%dT%H:%M:%SZ)\"}}\n\
             END\n"
        );
        fixture.write("renew", script.as_bytes());
        let renew = fixture.work.path("renew");
        fs::set_permissions(&renew, fs::Permissions::from_mode(0o755)).unwrap();
        let profile = format!("[profile short]\ncredential_process = {}\n", renew.display());
        fixture.write(".aws/config", profile.as_bytes());
        // `TOKEN EXPIRY` of all credentials that the script has issued.
        let issued = fixture.work.path("given");
        fixture.server.fail_when({
            let issued = issued.clone();
            move |request| {
                let known = fs::read_to_string(&issued).unwrap_or_default();
                let expiry = |line: &str| Some(line.strip_prefix(request.token?)?.trim().parse());
                let until: u64 = known.lines().find_map(expiry)?.unwrap();
                let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
                (now > until).then_some(Fault::Answer(400, "ExpiredToken"))
            }
        });
        let began = Instant::now();
        let mut command = fixture.publish(&format!("--bwlimit {}", OBJECTS * SIZE / DURATION));
        command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
        command.env("PATH", "/usr/bin:/bin").env("AWS_PROFILE", "short").assert().success();
        let took = began.elapsed();
        assert!(took > Duration::from_secs(DURATION - 5), "{took:?}");
        assert_same(&fixture.expected(), &fixture.published());
        let calls = fs::read_to_string(issued).unwrap().lines().count() as u64;
        // `dor` renews credentials when a fifth of their lifetime is left.
        let most = took.as_secs() / (LIFETIME * 4 / 5) + 1;
        assert!((took.as_secs() / LIFETIME..=most).contains(&calls), "{calls} calls in {took:?}");
    });
}
