//! Open buffers over the disk: what the compiler reads when an editor asks.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;

use crate::source::{FileId, Files};

use super::disk::Disk;
use super::uri;

/// The text of a file that is no curriculum, if it is there, or why it cannot be read.
type Beside = Result<Option<String>, String>;

/// All files this session has heard of. A file keeps its id for the session.
pub(super) struct Documents {
    files: Vec<Document>,
    ids: HashMap<String, FileId>,
    disk: Box<dyn Disk>,
    /// Counts the moments at which the disk may have changed.
    generation: u64,
    globs: RefCell<HashMap<PathBuf, (u64, Vec<PathBuf>)>>,
    beside: RefCell<HashMap<PathBuf, (u64, Beside)>>,
    /// Shown names are relative to this.
    root: Option<String>,
}

struct Document {
    key: String,
    /// As the client writes it.
    uri: String,
    name: String,
    text: String,
    /// The client's version, while it is open.
    version: Option<i32>,
    /// What the client said of the file beside its buffer.
    provided: Option<String>,
    /// Why there is no text.
    missing: Option<String>,
    /// When the disk was last asked.
    read_at: u64,
}

impl Documents {
    pub(super) fn new(disk: Box<dyn Disk>) -> Self {
        Self {
            files: Vec::new(),
            ids: HashMap::new(),
            disk,
            generation: 1,
            globs: RefCell::default(),
            beside: RefCell::default(),
            root: None,
        }
    }

    pub(super) fn set_root(&mut self, uri: &str) {
        self.root = Some(format!("{}/", uri::key(uri).trim_end_matches('/')));
    }

    pub(super) fn disk(&self) -> &dyn Disk {
        self.disk.as_ref()
    }

    /// Files that are not open are read again when next asked for.
    pub(super) fn disk_may_have_changed(&mut self) {
        self.generation += 1;
    }

    fn id(&mut self, key: String) -> FileId {
        if let Some(id) = self.ids.get(&key) {
            return *id;
        }
        let id = FileId(self.files.len() as u32);
        let shown = self.root.as_ref().and_then(|root| key.strip_prefix(root.as_str()));
        let name = shown.unwrap_or_else(|| key.strip_prefix("file://").unwrap_or(&key)).to_owned();
        self.files.push(Document {
            uri: uri::to_uri(&key),
            name,
            text: String::new(),
            version: None,
            provided: None,
            missing: None,
            read_at: 0,
            key: key.clone(),
        });
        self.ids.insert(key, id);
        id
    }

    /// Open or replace a buffer.
    pub(super) fn open(&mut self, uri: &str, version: i32, text: String) -> FileId {
        let id = self.id(uri::key(uri));
        let file = &mut self.files[id.0 as usize];
        file.uri = uri.to_owned();
        file.text = text;
        file.version = Some(version);
        file.missing = None;
        id
    }

    /// Take the text of a file that is not open from the client, for where there is no disk;
    /// `None` takes it back.
    pub(super) fn provide(&mut self, uri: &str, text: Option<String>) -> FileId {
        let id = self.id(uri::key(uri));
        let file = &mut self.files[id.0 as usize];
        file.provided = text;
        file.read_at = 0;
        id
    }

    /// Close a buffer: the disk counts again.
    pub(super) fn close(&mut self, uri: &str) -> Option<FileId> {
        let id = self.known(uri)?;
        let file = &mut self.files[id.0 as usize];
        file.version = None;
        file.read_at = 0;
        Some(id)
    }

    pub(super) fn known(&self, uri: &str) -> Option<FileId> {
        self.ids.get(&uri::key(uri)).copied()
    }

    /// The file at `uri` if its buffer is open.
    pub(super) fn opened(&self, uri: &str) -> Option<FileId> {
        self.known(uri).filter(|id| self.version(*id).is_some())
    }

    pub(super) fn version(&self, id: FileId) -> Option<i32> {
        self.files.get(id.0 as usize)?.version
    }

    pub(super) fn uri(&self, id: FileId) -> &str {
        self.files.get(id.0 as usize).map_or("", |f| &f.uri)
    }

    pub(super) fn all_open(&self) -> Vec<FileId> {
        (0..self.files.len() as u32).map(FileId).filter(|id| self.version(*id).is_some()).collect()
    }

    /// Put another text in the place of an open one; the old one.
    pub(super) fn replace(&mut self, id: FileId, version: i32, text: String) -> String {
        match self.files.get_mut(id.0 as usize) {
            Some(file) => {
                file.version = Some(version);
                std::mem::replace(&mut file.text, text)
            }
            None => text,
        }
    }

    /// Whether files beside this one can be seen at all.
    pub(super) fn sees_beside(&self, id: FileId) -> bool {
        self.disk.present() && self.path(id).is_some()
    }

    fn path(&self, id: FileId) -> Option<PathBuf> {
        uri::to_path(&self.files.get(id.0 as usize)?.key)
    }

    /// Load a file by its address.
    pub(super) fn load_key(&mut self, key: String) -> Result<FileId, String> {
        let generation = self.generation;
        let id = self.id(key);
        let file = &self.files[id.0 as usize];
        if file.version.is_none() && file.read_at != generation {
            let read = match (&file.provided, uri::to_path(&file.key)) {
                (Some(text), _) => Ok(text.clone()),
                (None, Some(path)) => self.disk.read(&path),
                (None, None) => Err("no such file".to_owned()),
            };
            let file = &mut self.files[id.0 as usize];
            file.read_at = generation;
            match read {
                Ok(text) => {
                    file.text = text;
                    file.missing = None;
                }
                Err(why) => {
                    file.text.clear();
                    file.missing = Some(why);
                }
            }
        }
        match &self.files[id.0 as usize].missing {
            Some(why) => Err(why.clone()),
            None => Ok(id),
        }
    }
}

impl Files for Documents {
    fn load(&mut self, path: &str, from: Option<FileId>) -> Result<FileId, String> {
        let key = match from.and_then(|id| self.files.get(id.0 as usize)) {
            Some(from) => uri::join(&from.key, path),
            None => uri::key(path),
        };
        self.load_key(key)
    }

    fn text(&self, file: FileId) -> &str {
        self.files.get(file.0 as usize).map_or("", |f| &f.text)
    }

    fn name(&self, file: FileId) -> &str {
        self.files.get(file.0 as usize).map_or("", |f| &f.name)
    }

    fn glob(&self, pattern: &str, from: FileId) -> Vec<PathBuf> {
        let Some(path) = self.path(from) else { return Vec::new() };
        let directory = path.parent().unwrap_or(&path);
        let key = directory.join(pattern);
        if let Some((generation, found)) = self.globs.borrow().get(&key)
            && *generation == self.generation
        {
            return found.clone();
        }
        let found = self.disk.glob(directory, pattern);
        self.globs.borrow_mut().insert(key, (self.generation, found.clone()));
        found
    }

    fn read_beside(&self, path: &str, from: FileId) -> Result<Option<String>, String> {
        let Some(path) = self.path(from).and_then(|file| Some(file.parent()?.join(path))) else {
            return Ok(None);
        };
        if let Some((generation, found)) = self.beside.borrow().get(&path)
            && *generation == self.generation
        {
            return found.clone();
        }
        let found = self.disk.beside(&path);
        self.beside.borrow_mut().insert(path, (self.generation, found.clone()));
        found
    }
}
