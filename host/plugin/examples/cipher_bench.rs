//! What a cipher plugin costs: bytes a second by plan and in the raw world against native AES-256-GCM in place, and
//! what single calls of each kind take. Prints JSON: ratios are medians over rounds, each ratio taken within a round.
//!
//! `cipher_bench PLUGINS-FOLDER [--quick]`

#![expect(clippy::unwrap_used, reason = "a measuring program fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{AeadInOut as _, KeyInit as _};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use farseal_plugin::vault::epoch_key::EpochKey;
use farseal_plugin::vault::guest::GuestLayer;
use farseal_plugin::vault::provider::Provider;
use farseal_plugin::vault::schedule::KeyScope;
use farseal_plugin::vault::seal::Sealer;
use farseal_plugin::vault::stack::{KeyLabel, Layer, Stack, StackIndex, StackList, Suite};
use farseal_plugin::vault::unit::{AAD_LEN, HEADER_LEN, MAX_BLOCK, Unit, tags_len};
use farseal_plugin::wit::cipher::{self as wit, Batch, RecordKind, Shape};
use farseal_plugin::wit::rotation::{Context, Event, HostLimits, KeyInfo, KeyState};
use farseal_plugin::{
    Cipher, CipherWorker, Digest, Disguise, Grant, HostOptions, LoadRequest, Plugin, PluginHost, RotationPolicy,
};
use serde_json::{Value, json};

/// A batch: how many records, how long each is.
#[derive(Debug, Clone, Copy)]
struct Load {
    name: &'static str,
    records: usize,
    bytes: usize,
}

const LOADS: [Load; 6] = [
    Load { name: "4 KiB", records: 1, bytes: 4 << 10 },
    Load { name: "64 KiB", records: 1, bytes: 64 << 10 },
    Load { name: "1 MiB", records: 1, bytes: 1 << 20 },
    Load { name: "64 x 4 KiB", records: 64, bytes: 4 << 10 },
    Load { name: "16 x 64 KiB", records: 16, bytes: 64 << 10 },
    Load { name: "4 x 1 MiB", records: 4, bytes: 1 << 20 },
];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let quick = words.iter().any(|word| word == "--quick");
    let plugins = Plugins { folder: words[0].clone(), host: PluginHost::new(HostOptions::uncached()).unwrap() };
    let (rounds, span) = if quick { (3, 15) } else { (9, 40) };
    let span = Duration::from_millis(span);
    let loads: Vec<Value> = LOADS.iter().map(|load| throughput(&plugins, *load, rounds, span)).collect();
    println!("{}", json!({ "ciphers": loads, "calls": calls(&plugins, rounds, span) }));
}

struct Plugins {
    folder: String,
    host: PluginHost,
}

impl Plugins {
    fn load<P: Plugin>(&self, name: &str, grants: &[Grant]) -> Arc<P> {
        let bytes = std::fs::read(Path::new(&self.folder).join(format!("{name}.wasm"))).unwrap();
        let (pin, config) = (Some(Digest::of(&bytes)), json!({}));
        Arc::new(self.host.load(&LoadRequest { slot: name, bytes: &bytes, pin, grants, config: &config }).unwrap())
    }
}

/// A way to seal the whole batch once.
type Way<'a> = Box<dyn FnMut(&mut [Vec<u8>]) + 'a>;

fn throughput(plugins: &Plugins, load: Load, rounds: usize, span: Duration) -> Value {
    let mut ways: Vec<(&str, Way<'_>)> = vec![
        ("aws-lc", native_aws_lc()),
        ("aes-gcm", native_portable()),
        ("by plan", planned(plugins.load("aes-256-gcm", &[]), false, load)),
        ("raw", planned(plugins.load("chacha20-guest", &[Grant::Raw]), true, load)),
    ];
    let mut bodies = vec![vec![0x5A; load.bytes]; load.records];
    let mut rates: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (_, way) in &mut ways {
        way(&mut bodies);
    }
    for _ in 0..rounds {
        for (name, way) in &mut ways {
            let (mut done, begun) = (0_u32, Instant::now());
            while begun.elapsed() < span {
                // As many as make the clock's own cost vanish.
                for _ in 0..8 {
                    way(&mut bodies);
                    done += 1;
                }
            }
            let bytes = f64::from(done) * f64::from(u32::try_from(load.bytes * load.records).unwrap());
            rates.entry(name).or_default().push(bytes / begun.elapsed().as_secs_f64() / 1e9);
        }
    }
    let ratio = |name: &str| median(rates[name].iter().zip(&rates["aws-lc"]).map(|(rate, native)| rate / native));
    let ways: Vec<Value> = ways
        .iter()
        .map(|(name, _)| json!({ "way": name, "gb-per-s": median(rates[name].iter().copied()), "ratio": ratio(name) }))
        .collect();
    json!({ "load": load.name, "ways": ways })
}

/// The associated data of a record's block, as long as the real one.
const AAD: [u8; AAD_LEN] = [7; AAD_LEN];

fn native_aws_lc<'a>() -> Way<'a> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[1; 32]).unwrap());
    let mut count = 0_u64;
    Box::new(move |bodies| {
        for body in bodies {
            let nonce = Nonce::assume_unique_for_key(nonce(&mut count));
            let _ = std::hint::black_box(key.seal_in_place_separate_tag(nonce, Aad::from(&AAD), body).unwrap());
        }
    })
}

fn native_portable<'a>() -> Way<'a> {
    let key = Aes256Gcm::new(&[1; 32].into());
    let mut count = 0_u64;
    Box::new(move |bodies| {
        for body in bodies {
            let nonce = nonce(&mut count);
            let _ = std::hint::black_box(
                key.encrypt_inout_detached(&nonce.into(), &AAD, body.as_mut_slice().into()).unwrap(),
            );
        }
    })
}

fn nonce(count: &mut u64) -> [u8; 12] {
    *count += 1;
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&count.to_be_bytes());
    nonce
}

/// One guest call for the batch's plan, then the vault carries it out.
fn planned<'a>(cipher: Arc<Cipher>, raw: bool, load: Load) -> Way<'a> {
    let stacks: Vec<Stack> = cipher.description().stacks.iter().map(stack).collect();
    let scope = KeyScope { pair: [1; 16], generation: 1, epoch: 1, incarnation: [2; 16] };
    let key = EpochKey::generate(b"bench").unwrap();
    let mut sealer = Sealer::new(&key, &scope, StackList::new(&stacks).unwrap(), Provider::AwsLc);
    let mut guest: Option<CipherWorker> = raw.then(|| Arc::clone(&cipher).worker());
    let mut worker = cipher.worker();
    let block = u32::try_from(load.bytes).unwrap().min(MAX_BLOCK);
    let header = [7; HEADER_LEN];
    let mut tags = vec![vec![0; tags_len(load.bytes, block).unwrap()]; load.records];
    let mut sequence = 0_u64;
    Box::new(move |bodies| {
        let plan = worker.plan_batch(&batch(sequence + 1, load.records, load.bytes, block)).unwrap().value;
        let choice = |index: usize| plan.choices.get(index).or(plan.choices.first()).copied().unwrap();
        let each = bodies.iter_mut().zip(&mut tags).enumerate();
        let mut units: Vec<Unit<'_>> = each
            .map(|(index, (body, tags))| {
                sequence += 1;
                let stack = StackIndex(choice(index));
                Unit { header: &header, seq: sequence, stack, block_len: block, first_block: 0, body, beside: 0, tags }
            })
            .collect();
        let guest = guest.as_mut().map(|guest| guest as &mut dyn GuestLayer);
        sealer.seal_batch(&mut units, guest).unwrap();
    })
}

fn batch(first_sequence: u64, records: usize, bytes: usize, block: u32) -> Batch {
    let blocks = u32::try_from(bytes).unwrap().div_ceil(block);
    let records = (0..records).map(|at| Shape { kind: RecordKind::Data, first: u64::try_from(at).unwrap(), blocks });
    Batch { epoch: 1, first_sequence, block_bytes: block, records: records.collect() }
}

fn stack(described: &wit::Stack) -> Stack {
    let suite = |suite: wit::Suite| match suite {
        wit::Suite::Aes256Gcm => Suite::Aes256Gcm,
        wit::Suite::Aes256GcmSiv => Suite::Aes256GcmSiv,
        wit::Suite::Chacha20Poly1305 => Suite::ChaCha20Poly1305,
        wit::Suite::Chacha20 => Suite::ChaCha20,
        wit::Suite::Own => Suite::Guest,
    };
    let layers = described.layers.iter();
    let layers =
        layers.map(|layer| Layer { suite: suite(layer.suite), label: KeyLabel::new(&layer.key_label).unwrap() });
    Stack::new(&layers.collect::<Vec<_>>()).unwrap()
}

/// Something that is done again and again.
type Call = Box<dyn FnMut()>;

/// Microseconds a call.
fn calls(plugins: &Plugins, rounds: usize, span: Duration) -> Value {
    let cipher: Arc<Cipher> = plugins.load("aes-256-gcm", &[]);
    let policy: Arc<RotationPolicy> = plugins.load("interval", &[]);
    let disguise: Arc<Disguise> = plugins.load("cover", &[]);
    let context = context(&policy.facts().config);
    let state = policy.init(&context).unwrap().value.state;
    let (cover, payload) = (vec![0x5A; 8 << 10], vec![0xA5; 2_800]);
    let mut calls: Vec<(&str, Call)> = vec![
        ("cipher: plan a batch of 1", {
            let batch = batch(1, 1, 4096, 4096);
            let mut worker = Arc::clone(&cipher).worker();
            Box::new(move || drop(worker.plan_batch(&batch).unwrap()))
        }),
        ("cipher: plan a batch of 64", {
            let batch = batch(1, 64, 4096, 4096);
            let mut worker = cipher.worker();
            Box::new(move || drop(worker.plan_batch(&batch).unwrap()))
        }),
        (
            "rotation: a step in a fresh instance",
            Box::new(move || drop(policy.step(&state, &Event::Timer, &context).unwrap())),
        ),
        (
            "disguise: embed and verify in a second instance",
            Box::new(move || drop(disguise.embed(&cover, &payload, &[3; 32]).unwrap())),
        ),
    ];
    let results = calls.iter_mut().map(|(name, call)| {
        call();
        let times = (0..rounds).map(|_| {
            let (mut done, begun) = (0_u32, Instant::now());
            while begun.elapsed() < span {
                call();
                done += 1;
            }
            begun.elapsed().as_secs_f64() * 1e6 / f64::from(done)
        });
        json!({ "call": name, "us": median(times) })
    });
    Value::Array(results.collect())
}

fn context(config: &str) -> Context {
    let key =
        KeyInfo { epoch: 1, state: KeyState::Active, since: 0, bytes_sealed: 0, blocks_sealed: 0, records_sealed: 0 };
    Context {
        now: 1_000,
        pair: "bench".into(),
        entropy: 1,
        config: config.into(),
        keys: vec![key],
        limits: HostLimits { min_interval: 1_000, max_age: 1 << 40, max_bytes: 1 << 40 },
        link_up: true,
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
