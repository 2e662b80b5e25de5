//! Credentials that live shorter than a publish.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant, SystemTime};

use super::super::support::case::assert_same;
use super::super::support::proxy::Fault;
use super::on_servers;

/// Seconds that credentials live, and that the publish takes at least.
const LIFE: u64 = 20;
const RUN: u64 = 120;
const OBJECTS: u64 = 120;
const SIZE: u64 = 20_000;

#[test]
fn credentials_are_renewed_once_per_expiry() {
    // Source Cooperative gives its temporary keys itself.
    on_servers(|bench| {
        bench.write_many(OBJECTS as usize, SIZE as usize);
        let variables = bench.server.variables();
        let of = |name: &str| variables.iter().find(|(known, _)| *known == name).unwrap().1.clone();
        let (key, secret) = (of("AWS_ACCESS_KEY_ID"), of("AWS_SECRET_ACCESS_KEY"));
        // MinIO gives temporary keys, for a quarter of an hour at least; the embedded server does
        // not look at tokens. That they live shorter is for the proxy to see to.
        let given = match bench.server.is_minio() {
            true => format!(
                "answer=$(curl --silent --fail --aws-sigv4 aws:amz:us-east-1:sts --user {key}:{secret} \
                 -d 'Action=AssumeRole&Version=2011-06-15&DurationSeconds=900' {})\n\
                 of() {{ echo \"$answer\" | sed -n \"s:.*<$1>\\(.*\\)</$1>.*:\\1:p\"; }}\n\
                 key=$(of AccessKeyId) secret=$(of SecretAccessKey) token=$(of SessionToken)\n",
                bench.server.endpoint
            ),
            false => format!("key={key} secret={secret} token=made-$$\n"),
        };
        let script = format!(
            "#!/bin/sh\nset -e\n{given}until=$(($(date +%s) + {LIFE}))\n\
             echo \"$token $until\" >> given\n\
             cat <<END\n\
             {{\"Version\": 1, \"AccessKeyId\": \"$key\", \"SecretAccessKey\": \"$secret\", \
             \"SessionToken\": \"$token\", \"Expiration\": \"$(date -u -d @$until +%Y-%m-%dT%H:%M:%SZ)\"}}\n\
             END\n"
        );
        bench.write("renew", script.as_bytes());
        let renew = bench.work.path("renew");
        fs::set_permissions(&renew, fs::Permissions::from_mode(0o755)).unwrap();
        let profile = format!("[profile short]\ncredential_process = {}\n", renew.display());
        bench.write(".aws/config", profile.as_bytes());
        let given = bench.work.path("given");
        bench.server.fail_when({
            let given = given.clone();
            move |asked| {
                let known = fs::read_to_string(&given).unwrap_or_default();
                let of_token = |line: &str| Some(line.strip_prefix(asked.token?)?.trim().parse());
                let until: u64 = known.lines().find_map(of_token)?.unwrap();
                let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
                (now > until).then_some(Fault::Answer(400, "ExpiredToken"))
            }
        });
        let began = Instant::now();
        let mut command = bench.publish(&format!("--bwlimit {}", OBJECTS * SIZE / RUN));
        command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
        command.env("PATH", "/usr/bin:/bin").env("AWS_PROFILE", "short").assert().success();
        let took = began.elapsed();
        assert!(took > Duration::from_secs(RUN - 5), "{took:?}");
        assert_same(&bench.expected(), &bench.published());
        let calls = fs::read_to_string(given).unwrap().lines().count() as u64;
        // They are renewed when a fifth of their life is left.
        let most = took.as_secs() / (LIFE * 4 / 5) + 1;
        assert!((took.as_secs() / LIFE..=most).contains(&calls), "{calls} calls in {took:?}");
    });
}
