// The extension in a browser: the compiler runs in a worker, compiled to WebAssembly.
const vscode = require('vscode');
const { LanguageClient } = require('vscode-languageclient/browser');
const { options, PlanPanel, commands } = require('./client');

let client;

async function activate(context) {
  const output = vscode.window.createOutputChannel('midc');
  const panel = new PlanPanel(context);
  const start = async () => {
    const worker = new Worker(vscode.Uri.joinPath(context.extensionUri, 'dist', 'server.js').toString(true));
    client = new LanguageClient('midc', 'midc', options(output, panel), worker);
    await client.start();
    await handOver(context);
  };
  const session = {
    output,
    panel,
    client: () => client,
    restart: async () => {
      await client?.stop().catch(() => {});
      await start();
    },
  };
  context.subscriptions.push(output);
  commands(context, session);
  await start();
}

/** The compiler has no disk here: give it the files that a `use` leads to, and theirs. */
async function handOver(context) {
  const given = new Map();
  const give = async (uri) => {
    const key = uri.toString();
    const bytes = await vscode.workspace.fs.readFile(uri).then((b) => b, () => undefined);
    const text = bytes && new TextDecoder().decode(bytes);
    if (given.has(key) && given.get(key) === text) return;
    given.set(key, text);
    await client.sendNotification('midc/file', { uri: key, text: text ?? null });
    if (text !== undefined) await follow(uri, text);
  };
  const follow = async (uri, text) => {
    for (const [, path] of text.matchAll(/^[ \t]*use[ \t]+"([^"\n]+)"/gm)) {
      const target = path.startsWith('/') ? uri.with({ path }) : vscode.Uri.joinPath(uri, '..', path);
      if (!given.has(target.toString())) await give(target);
    }
  };
  const look = (document) => {
    if (document.languageId === 'curriculum') follow(document.uri, document.getText()).catch(() => {});
  };
  const again = (uri) => {
    given.delete(uri.toString());
    give(uri).catch(() => {});
  };
  const watcher = vscode.workspace.createFileSystemWatcher('**/*.curriculum');
  watcher.onDidChange(again);
  watcher.onDidCreate(again);
  watcher.onDidDelete(again);
  context.subscriptions.push(
    watcher,
    vscode.workspace.onDidOpenTextDocument(look),
    vscode.workspace.onDidChangeTextDocument((event) => look(event.document)),
    vscode.workspace.onDidSaveTextDocument((document) => again(document.uri)),
  );
  vscode.workspace.textDocuments.forEach(look);
}

module.exports = { activate, deactivate: () => client?.stop() };
