// The extension on a desktop: finds the midc program, starts `midc lsp`, says clearly what is wrong
// when it cannot.
const fs = require('fs');
const os = require('os');
const path = require('path');
const { execFile } = require('child_process');
const vscode = require('vscode');
const { LanguageClient, TransportKind } = require('vscode-languageclient/node');
const { options, PlanPanel, commands, setProgram } = require('./client');

let client;

/** Where midc is, or what was tried. */
function find() {
  const exe = process.platform === 'win32' ? 'midc.exe' : 'midc';
  const set = vscode.workspace.getConfiguration('midc').get('server.path');
  if (set) {
    const full = set.startsWith('~/') ? path.join(os.homedir(), set.slice(2)) : set;
    if (path.isAbsolute(full)) return runs(full) ? { path: full } : { tried: [full], set };
    const found = inPath(full);
    return found ? { path: found } : { tried: [full], set };
  }
  const tried = ['$PATH'];
  const found = inPath(exe);
  if (found) return { path: found };
  const places = [path.join(os.homedir(), '.cargo', 'bin', exe)];
  // A build in the workspace is run only where the user trusts it.
  if (vscode.workspace.isTrusted) {
    for (const folder of vscode.workspace.workspaceFolders ?? []) {
      for (const profile of ['release', 'debug']) places.push(path.join(folder.uri.fsPath, 'target', profile, exe));
    }
  }
  for (const place of places) {
    if (runs(place)) return { path: place };
    tried.push(place);
  }
  return { tried };
}

function runs(file) {
  try {
    fs.accessSync(file, fs.constants.X_OK);
    return fs.statSync(file).isFile();
  } catch {
    return false;
  }
}

function inPath(name) {
  return (process.env.PATH ?? '')
    .split(path.delimiter)
    .filter(Boolean)
    .map((directory) => path.join(directory, name))
    .find(runs);
}

function version(program) {
  return new Promise((resolve) => {
    execFile(program, ['--version'], { timeout: 5000 }, (error, stdout) => resolve(error ? undefined : stdout.trim()));
  });
}

async function complain(message, ...more) {
  const choice = await vscode.window.showErrorMessage(message, 'Set the Path', ...more);
  if (choice === 'Set the Path') vscode.commands.executeCommand('workbench.action.openSettings', 'midc.server.path');
  if (choice === 'Show the Log') vscode.commands.executeCommand('midc.showLog');
}

async function start(session) {
  const found = find();
  if (!found.path) {
    const where = found.set ? `\`midc.server.path\` is \`${found.set}\`, and no program is there` : `midc was not found in ${found.tried.join(', ')}`;
    session.output.appendLine(where);
    complain(`${where}. Install it with \`cargo install midc\`, or set its path. Highlighting works without it.`);
    return;
  }
  const said = await version(found.path);
  if (!said?.startsWith('midc ')) {
    session.output.appendLine(`${found.path} --version said: ${said ?? 'nothing'}`);
    complain(`\`${found.path}\` does not answer as midc does.`, 'Show the Log');
    return;
  }
  session.output.appendLine(`${said} at ${found.path}`);
  setProgram(found.path);
  const args = vscode.workspace.getConfiguration('midc').get('server.arguments');
  client = new LanguageClient(
    'midc',
    'midc',
    { command: found.path, args, transport: TransportKind.stdio },
    options(session.output, session.panel),
  );
  try {
    await client.start();
  } catch (error) {
    session.output.appendLine(String(error));
    complain(`midc was found at \`${found.path}\` and could not be started: ${error.message ?? error}`, 'Show the Log');
  }
}

async function activate(context) {
  const output = vscode.window.createOutputChannel('midc');
  const session = {
    output,
    panel: new PlanPanel(context),
    client: () => client,
    restart: async () => {
      await client?.stop().catch(() => {});
      client = undefined;
      await start(session);
    },
  };
  context.subscriptions.push(
    output,
    vscode.workspace.onDidChangeConfiguration((event) => {
      if (event.affectsConfiguration('midc.server')) session.restart();
    }),
  );
  commands(context, session);
  await start(session);
}

module.exports = { activate, deactivate: () => client?.stop() };
