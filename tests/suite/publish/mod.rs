//! Publishing: what is sent and in which order, what is left alone, and what survives failures.
//! Each test goes to the embedded server, to MinIO, and to MinIO through Source Cooperative's own proxy, with a
//! proxy in front that logs and fails.

mod checksums;
mod corruption;
mod credentials;
mod flaky_server;
mod incremental;
mod killed;
mod lease;
mod manifests;
mod protected;
mod reader_consistency;
mod rejected_inputs;
mod s5cmd_comparison;
mod source_coop_profile;
mod source_coop_proxy;
mod upload_order;

use std::fs;
use std::ops::Deref;
use std::process::{Command as Process, Stdio};

use assert_cmd::Command;
use dor_atlas::store::{Store, StoreRegistry};
use futures::StreamExt;
use rand::Rng;
use serde_json::Value;

use super::support::case::{Tree, Workspace};
use super::support::dor::dor;
use super::support::minio::Minio;
use super::support::proxy::Proxy;
use super::support::s3::S3Server;
use super::support::source_coop;

const CONFIGURATION: i32 = 78;
const INTERRUPTED: i32 = 75;
/// The smallest parts that S3 knows.
const PART: usize = 5 << 20;
const MAPS: &str = "site/maps.zarr";

/// What is published to.
enum Server {
    Embedded(S3Server),
    Minio {
        minio: Minio,
        proxy: Proxy,
    },
    /// Source Cooperative's, before a MinIO.
    SourceCoop {
        minio: Minio,
        proxy: Proxy,
    },
}

impl Deref for Server {
    type Target = Proxy;

    fn deref(&self) -> &Proxy {
        match self {
            Self::Embedded(server) => server,
            Self::Minio { proxy, .. } | Self::SourceCoop { proxy, .. } => proxy,
        }
    }
}

impl Server {
    fn variables(&self) -> Vec<(&'static str, String)> {
        let mut variables = match self {
            Self::Embedded(server) => server.variables(),
            Self::Minio { minio, .. } => minio.variables(),
            Self::SourceCoop { .. } => source_coop::variables(),
        };
        variables.retain(|(name, _)| !name.starts_with("DOR_S3_"));
        variables.push(("DOR_S3_ENDPOINT_URL", self.endpoint.clone()));
        variables.push(("DOR_S3_ADDRESSING", "path".to_owned()));
        variables.push(("DOR_S3_PART_SIZE", PART.to_string()));
        variables
    }

    fn bucket(&self) -> &str {
        match self {
            Self::Embedded(_) => super::support::s3::BUCKET,
            Self::Minio { minio, .. } | Self::SourceCoop { minio, .. } => &minio.bucket,
        }
    }

    /// Past the proxy.
    fn stores(&self) -> StoreRegistry {
        match self {
            Self::Embedded(server) => server.own_stores(),
            Self::Minio { minio, .. } | Self::SourceCoop { minio, .. } => minio.stores(),
        }
    }

    /// Uploads of an object that were begun and neither completed nor aborted.
    fn unfinished(&self, key: &str) -> Vec<String> {
        match self {
            Self::Embedded(server) => server.unfinished(),
            Self::Minio { minio, .. } | Self::SourceCoop { minio, .. } => minio.unfinished(key),
        }
    }

    fn is_minio(&self) -> bool {
        matches!(self, Self::Minio { .. })
    }

    /// Whether a listing tells the MD5s of objects. The embedded server's does not.
    fn lists_md5(&self) -> bool {
        !matches!(self, Self::Embedded(_))
    }
}

/// A folder to publish, and a server to publish to.
struct Bench {
    work: Workspace,
    server: Server,
    runtime: tokio::runtime::Runtime,
}

/// Through Source Cooperative's own proxy, when there is a MinIO to stand behind it. Its one product is what
/// is published to.
fn through_source_coop() -> Option<Bench> {
    let minio = Minio::start()?;
    let proxy = Proxy::before(&source_coop::before(&minio, "site"));
    Some(Bench::new(Server::SourceCoop { minio, proxy }))
}

/// Does the same on each server that there is and through Source Cooperative's proxy, all at the same time: most
/// of it is waiting.
fn on_all(test: impl Fn(&Bench) + Sync) {
    std::thread::scope(|scope| {
        scope.spawn(|| on_servers(&test));
        scope.spawn(|| through_source_coop().as_ref().map(&test));
    });
}

/// The same without the proxy, for what it cannot do.
fn on_servers(test: impl Fn(&Bench) + Sync) {
    let minio = Minio::start();
    std::thread::scope(|scope| {
        scope.spawn(|| test(&Bench::new(Server::Embedded(S3Server::start()))));
        if let Some(minio) = minio {
            let proxy = Proxy::before(&minio.endpoint);
            test(&Bench::new(Server::Minio { minio, proxy }));
        }
    });
}

impl Bench {
    /// A map store with its records, and files of nobody.
    fn new(server: Server) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let bench = Self { work: Workspace::empty(b""), server, runtime };
        let mut raw = dor(bench.work.folder());
        raw.args(["demo", "raw", ".", "--case", "112-04", "--shape", "8x9x3", "--months", "1"]);
        raw.assert().success();
        bench.make_maps(MAPS, "PH");
        bench.write("site/notes/about.txt", b"about");
        bench.write("site/notes/.hidden/x", b"hidden");
        bench.write("site/notes/half.nc#1", b"half");
        bench
    }

    /// A finished map store of one case.
    fn make_maps(&self, name: &str, variables: &str) {
        for command in [
            format!("vis create-template-store2 -o {name} --variables {variables} -l 1"),
            format!(
                "vis populate-store2 -o {name} -p 112 -m 4 --data-dir archive --allow-missing --grid grid.nc"
            ),
            format!("vis finalize {name}"),
        ] {
            dor(self.work.folder()).args(command.split(' ')).assert().success();
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.work.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// `number` files of `size` bytes, below `site/many`.
    fn write_many(&self, number: usize, size: usize) {
        let mut random = rand::rng();
        let mut bytes = vec![0; size];
        for n in 0..number {
            random.fill(&mut bytes[..]);
            self.write(&format!("site/many/{:02}/{n}.bin", n % 20), &bytes);
        }
    }

    /// A file that goes by parts.
    fn write_large(&self, name: &str, size: usize) {
        let mut bytes = vec![0; size];
        rand::rng().fill(&mut bytes[..]);
        self.write(name, &bytes);
    }

    fn destination(&self) -> String {
        format!("s3://{}/site", self.server.bucket())
    }

    /// `dor publish site DESTINATION` with more words.
    fn publish(&self, more: &str) -> Command {
        let mut command = dor(self.work.folder());
        command.envs(self.server.variables());
        command.args(["publish", "site", &self.destination()]).args(more.split_whitespace());
        command
    }

    /// The same, to be started.
    fn publishing(&self, more: &str) -> Process {
        let mut command = Process::new(env!("CARGO_BIN_EXE_dor"));
        command.env_clear().env("HOME", self.work.folder()).current_dir(self.work.folder());
        command.envs(self.server.variables());
        command.args(["publish", "site", &self.destination()]).args(more.split_whitespace());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// The destination, past the proxy.
    fn store(&self) -> Store {
        self.server.stores().open(&self.destination().parse().unwrap()).unwrap()
    }

    fn read(&self, key: &str) -> Option<Vec<u8>> {
        let store = self.store();
        let read = self.runtime.block_on(store.get(key)).unwrap();
        read.map(|(bytes, _)| bytes.to_vec())
    }

    /// Puts something at the destination that nobody published.
    fn alter(&self, key: &str, bytes: &[u8]) {
        let store = self.store();
        self.runtime.block_on(store.put(key, bytes.to_vec().into())).unwrap();
    }

    fn remove(&self, key: &str) {
        let store = self.store();
        self.runtime.block_on(store.delete(key)).unwrap();
    }

    /// What lies at the destination, without what publishers keep there.
    fn published(&self) -> Tree {
        let store = self.store();
        let all = async {
            let found = store.list("").await.unwrap().into_iter();
            let read =
                found.filter(|object| !object.key.starts_with(".dor/")).map(async |object| {
                    let read = store.get_within(&object.key, u64::MAX).await.unwrap();
                    // Another process may be removing it.
                    read.map(|(bytes, _)| (object.key, bytes.to_vec()))
                });
            futures::stream::iter(read)
                .buffer_unordered(16)
                .filter_map(async |read| read)
                .collect()
                .await
        };
        self.runtime.block_on(all)
    }

    /// What should.
    fn expected(&self) -> Tree {
        let mut tree = self.work.tree("site");
        tree.retain(|name, _| !name.contains(".hidden") && !name.ends_with("#1"));
        tree
    }

    /// Whether anything was sent or deleted since the last look.
    fn has_changed_something(&self) -> bool {
        // Whoever is about to publish takes the lease, and gives it up.
        let changes = |request: &String| {
            !request.starts_with("GET")
                && !request.starts_with("HEAD")
                && !request.ends_with(".dor/lease.json")
        };
        self.server.requests().iter().any(changes)
    }
}

/// The lines of JSON that a command prints.
fn lines(command: &mut Command) -> Vec<Value> {
    let output = command.assert().success().get_output().stdout.clone();
    let text = String::from_utf8(output).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A seed for what happens by chance: the same again with `DOR_TEST_SEED`.
fn seed() -> u64 {
    let given = std::env::var("DOR_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| rand::rng().random());
    println!("DOR_TEST_SEED={seed} makes the same chances again");
    seed
}
