//! `dor publish`: which objects it sends, in which order, what it protects, and how it recovers from
//! failures.
//!
//! Most tests run with three servers: the embedded one, MinIO, and MinIO behind the proxy of Source
//! Cooperative. `dor` reaches each through a [`Proxy`] that logs requests and injects faults.

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
mod wrong_sources;

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

/// Exit code of a publish that `dor` refuses: running the same command again does not help.
const CONFIGURATION: i32 = 78;
/// Exit code of an interrupted publish: the same command can be run again.
const INTERRUPTED: i32 = 75;
/// The smallest part size that S3 allows, in bytes.
const PART_SIZE: usize = 5 << 20;
/// The map store (store 2) of a fixture.
const MAPS: &str = "site/maps.zarr";

/// The server that a test publishes to.
enum Server {
    Embedded(S3Server),
    Minio {
        minio: Minio,
        proxy: Proxy,
    },
    /// The proxy of Source Cooperative in front of a MinIO.
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
    /// The environment variables with which `dor` uses the server through the fault proxy.
    fn variables(&self) -> Vec<(&'static str, String)> {
        let mut variables = match self {
            Self::Embedded(server) => server.variables(),
            Self::Minio { minio, .. } => minio.variables(),
            Self::SourceCoop { .. } => source_coop::variables(),
        };
        variables.retain(|(name, _)| !name.starts_with("DOR_S3_"));
        variables.push(("DOR_S3_ENDPOINT_URL", self.endpoint.clone()));
        variables.push(("DOR_S3_ADDRESSING", "path".to_owned()));
        variables.push(("DOR_S3_PART_SIZE", PART_SIZE.to_string()));
        variables
    }

    fn bucket(&self) -> &str {
        match self {
            Self::Embedded(_) => super::support::s3::BUCKET,
            Self::Minio { minio, .. } | Self::SourceCoop { minio, .. } => &minio.bucket,
        }
    }

    /// A store registry that goes through neither the fault proxy nor that of Source Cooperative.
    fn stores(&self) -> StoreRegistry {
        match self {
            Self::Embedded(server) => server.direct_stores(),
            Self::Minio { minio, .. } | Self::SourceCoop { minio, .. } => minio.stores(),
        }
    }

    /// Multipart uploads of an object that are neither completed nor aborted. The embedded server does
    /// not tell objects apart: it returns those of all objects.
    fn unfinished(&self, key: &str) -> Vec<String> {
        match self {
            Self::Embedded(server) => server.unfinished(),
            Self::Minio { minio, .. } | Self::SourceCoop { minio, .. } => minio.unfinished(key),
        }
    }

    fn is_minio(&self) -> bool {
        matches!(self, Self::Minio { .. })
    }

    /// Whether listings have ETags that are MD5s. Those of the embedded server do not.
    fn lists_md5(&self) -> bool {
        !matches!(self, Self::Embedded(_))
    }
}

/// A folder `site` to publish, and a server to publish to.
struct Fixture {
    work: Workspace,
    server: Server,
    runtime: tokio::runtime::Runtime,
}

/// A fixture whose server is the proxy of Source Cooperative, with one product, `site`; `None` without
/// MinIO.
fn source_coop_fixture() -> Option<Fixture> {
    let minio = Minio::start()?;
    let proxy = Proxy::start(&source_coop::start_proxy(&minio, "site"));
    Some(Fixture::new(Server::SourceCoop { minio, proxy }))
}

/// Runs a test with each available server, in parallel because tests mostly wait.
fn for_each_server(test: impl Fn(&Fixture) + Sync) {
    std::thread::scope(|scope| {
        scope.spawn(|| for_each_direct_server(&test));
        scope.spawn(|| source_coop_fixture().as_ref().map(&test));
    });
}

/// Like [`for_each_server`], but without Source Cooperative, whose proxy does not support every test.
fn for_each_direct_server(test: impl Fn(&Fixture) + Sync) {
    let minio = Minio::start();
    std::thread::scope(|scope| {
        scope.spawn(|| test(&Fixture::new(Server::Embedded(S3Server::start()))));
        if let Some(minio) = minio {
            let proxy = Proxy::start(&minio.endpoint);
            test(&Fixture::new(Server::Minio { minio, proxy }));
        }
    });
}

impl Fixture {
    /// Creates `site` with a finalized map store and with files that no case manifest lists.
    fn new(server: Server) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let fixture = Self { work: Workspace::empty(b""), server, runtime };
        let mut raw = dor(fixture.work.folder());
        raw.args(["demo", "raw", ".", "--case", "112-04", "--shape", "8x9x3", "--months", "1"]);
        raw.assert().success();
        fixture.create_map_store(MAPS, "PH");
        fixture.write("site/notes/about.txt", b"about");
        fixture.write("site/notes/.hidden/x", b"hidden");
        fixture.write("site/notes/half.nc#1", b"half");
        fixture
    }

    /// Creates, fills and finalizes a store 2 with the case `112-04`.
    fn create_map_store(&self, name: &str, variables: &str) {
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

    /// Writes a file of the working folder.
    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.work.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Writes `number` files of `size` random bytes below `site/many`.
    fn write_many(&self, number: usize, size: usize) {
        let mut random = rand::rng();
        let mut bytes = vec![0; size];
        for n in 0..number {
            random.fill(&mut bytes[..]);
            self.write(&format!("site/many/{:02}/{n}.bin", n % 20), &bytes);
        }
    }

    /// Writes a file of random bytes. If it is larger than [`PART_SIZE`], `dor` uploads it in parts.
    fn write_large(&self, name: &str, size: usize) {
        let mut bytes = vec![0; size];
        rand::rng().fill(&mut bytes[..]);
        self.write(name, &bytes);
    }

    /// The URL that the fixture publishes to.
    fn destination(&self) -> String {
        format!("s3://{}/site", self.server.bucket())
    }

    /// The command `dor publish site DESTINATION` with the additional arguments `more`.
    fn publish(&self, more: &str) -> Command {
        let mut command = dor(self.work.folder());
        command.envs(self.server.variables());
        command.args(["publish", "site", &self.destination()]).args(more.split_whitespace());
        command
    }

    /// Like [`Fixture::publish`], as a command that a test can spawn and kill.
    fn publish_process(&self, more: &str) -> Process {
        let mut command = Process::new(env!("CARGO_BIN_EXE_dor"));
        command.env_clear().env("HOME", self.work.folder()).current_dir(self.work.folder());
        command.envs(self.server.variables());
        command.args(["publish", "site", &self.destination()]).args(more.split_whitespace());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// The destination, reached without any proxy.
    fn store(&self) -> Store {
        self.server.stores().open(&self.destination().parse().unwrap()).unwrap()
    }

    /// The bytes of an object at the destination.
    fn get_object(&self, key: &str) -> Option<Vec<u8>> {
        let store = self.store();
        let read = self.runtime.block_on(store.get(key)).unwrap();
        read.map(|(bytes, _)| bytes.to_vec())
    }

    /// Writes an object at the destination without `dor publish`, as another program would.
    fn put_object(&self, key: &str, bytes: &[u8]) {
        let store = self.store();
        self.runtime.block_on(store.put(key, bytes.to_vec().into())).unwrap();
    }

    /// Deletes an object at the destination without `dor publish`.
    fn delete_object(&self, key: &str) {
        let store = self.store();
        self.runtime.block_on(store.delete(key)).unwrap();
    }

    /// All objects at the destination, except for those in `.dor/`.
    fn published(&self) -> Tree {
        let store = self.store();
        let all = async {
            let found = store.list("").await.unwrap().into_iter();
            let read =
                found.filter(|object| !object.key.starts_with(".dor/")).map(async |object| {
                    let read = store.get_within(&object.key, u64::MAX).await.unwrap();
                    // A publish that still runs may have deleted it since the listing.
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

    /// The objects that the destination must have after a publish of the whole `site`.
    fn expected(&self) -> Tree {
        let mut tree = self.work.tree("site");
        tree.retain(|name, _| !name.contains(".hidden") && !name.ends_with("#1"));
        tree
    }

    /// Whether `dor` has written or deleted an object other than its lease. Reads and clears the request
    /// log of the proxy.
    fn has_changed_objects(&self) -> bool {
        // A publish takes and releases the lease even if it then changes nothing.
        let changes = |request: &String| {
            !request.starts_with("GET")
                && !request.starts_with("HEAD")
                && !request.ends_with(".dor/lease.json")
        };
        self.server.requests().iter().any(changes)
    }
}

/// Runs a command, which must succeed, and parses each line of its standard output as JSON.
fn json_lines(command: &mut Command) -> Vec<Value> {
    let output = command.assert().success().get_output().stdout.clone();
    let text = String::from_utf8(output).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A seed for random faults and kills: `DOR_TEST_SEED` if set, else a random one.
fn seed() -> u64 {
    let given = std::env::var("DOR_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| rand::rng().random());
    println!("to repeat this run: DOR_TEST_SEED={seed}");
    seed
}
