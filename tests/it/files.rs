//! A random workload against an in-memory model, without faults and with them.

use std::collections::BTreeMap;

use client::{CreateOptions, Fs};
use proto::granary::RenameMode;
use proto::{Code, FsPath};
use tests::cluster::path;
use tests::seed::Seed;

/// What the file system must hold: every acknowledged file and folder.
#[derive(Default)]
pub struct Model {
    files: BTreeMap<String, Vec<u8>>,
    folders: Vec<String>,
}

const BLOCK_BYTES: u64 = 1 << 20;

impl Model {
    /// One random operation on the file system, and the same on the model. All must succeed.
    pub async fn step(&mut self, fs: &Fs, seed: &mut Seed) {
        match seed.below(10) {
            0..=3 => self.create(fs, seed).await,
            4 | 5 => self.append(fs, seed).await,
            6 => self.rename(fs, seed).await,
            7 => self.delete(fs, seed).await,
            8 => self.make_folder(fs, seed).await,
            _ => self.read_one(fs, seed).await,
        }
    }

    fn some_file(&self, seed: &mut Seed) -> Option<String> {
        let count = self.files.len() as u64;
        (count > 0)
            .then(|| self.files.keys().nth(seed.below(count) as usize).expect("in range").clone())
    }

    fn new_name(&self, seed: &mut Seed) -> String {
        let folder = match self.folders.len() as u64 {
            0 => "",
            count => &self.folders[seed.below(count) as usize],
        };
        format!("{folder}/f{}", seed.below(40))
    }

    async fn create(&mut self, fs: &Fs, seed: &mut Seed) {
        let name = self.new_name(seed);
        let max = if seed.below(4) == 0 { 3 * BLOCK_BYTES } else { 5000 };
        let len = seed.below(max) as usize;
        let bytes = seed.bytes(len);
        let options =
            CreateOptions { overwrite: true, block_bytes: BLOCK_BYTES, ..CreateOptions::default() };
        let mut file = fs.create(&path(&name), options).await.expect("create");
        for part in bytes.chunks(1 + seed.below(700_000) as usize) {
            file.write(part).await.expect("write");
        }
        file.close().await.expect("close");
        self.files.insert(name, bytes);
    }

    async fn append(&mut self, fs: &Fs, seed: &mut Seed) {
        let Some(name) = self.some_file(seed) else { return };
        let more = {
            let len = seed.below(300_000) as usize;
            seed.bytes(len)
        };
        let mut file = fs.append(&path(&name)).await.expect("append");
        file.write(&more).await.expect("write");
        if seed.below(2) == 0 {
            file.sync().await.expect("sync");
        }
        file.close().await.expect("close");
        self.files.get_mut(&name).expect("known").extend(more);
    }

    async fn rename(&mut self, fs: &Fs, seed: &mut Seed) {
        let Some(from) = self.some_file(seed) else { return };
        let to = self.new_name(seed);
        if from == to {
            return;
        }
        fs.rename(&path(&from), &path(&to), RenameMode::Replace).await.expect("rename");
        let bytes = self.files.remove(&from).expect("known");
        self.files.insert(to, bytes);
    }

    async fn delete(&mut self, fs: &Fs, seed: &mut Seed) {
        let Some(name) = self.some_file(seed) else { return };
        assert!(fs.delete(&path(&name), client::Recursion::No).await.expect("delete"));
        self.files.remove(&name);
    }

    async fn make_folder(&mut self, fs: &Fs, seed: &mut Seed) {
        let name = format!("/d{}", seed.below(5));
        let made = fs.mkdirs(&path(&name), 0o755).await.expect("mkdirs");
        assert_eq!(made, !self.folders.contains(&name), "{name}");
        if made {
            self.folders.push(name);
        }
    }

    async fn read_one(&mut self, fs: &Fs, seed: &mut Seed) {
        let Some(name) = self.some_file(seed) else { return };
        self.check(fs, &name).await;
    }

    async fn check(&self, fs: &Fs, name: &str) {
        let expected = &self.files[name];
        let found = fs.read_all(&path(name), 64 << 20).await.expect("read");
        assert_eq!(found.len(), expected.len(), "length of {name}");
        assert!(found[..] == expected[..], "content of {name}");
    }

    /// Every file is there with its bytes, and nothing else is.
    pub async fn check_all(&self, fs: &Fs) {
        for name in self.files.keys() {
            self.check(fs, name).await;
        }
        for folder in self.folders.iter().map(String::as_str).chain(["/"]) {
            for entry in fs.list(&path(folder)).await.expect("list") {
                let name = path(folder).join(&entry.name).expect("a good name").to_string();
                let known = self.files.contains_key(&name) || self.folders.contains(&name);
                assert!(known, "{name} should not be there");
            }
        }
        let gone = FsPath::parse("/never").expect("a good path");
        assert_eq!(fs.status(&gone).await.expect_err("never made").code, Code::NotFound);
    }
}
