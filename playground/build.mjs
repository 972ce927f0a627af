// Makes dist/index.html: the page, the compiler and the examples in one file that needs no server.
//   node build.mjs               builds the WebAssembly with cargo
//   node build.mjs --wasm=FILE   takes it from FILE     --out=FILE   writes there
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const option = (name) => process.argv.find((a) => a.startsWith(`--${name}=`))?.slice(name.length + 3);
const read = (...path) => readFileSync(join(here, ...path), 'utf8');

let wasm = option('wasm');
if (!wasm) {
  execFileSync('cargo', ['build', '--release', '--target', 'wasm32-unknown-unknown', '--target-dir', join(here, 'target')], { cwd: here, stdio: 'inherit' });
  wasm = join(here, 'target/wasm32-unknown-unknown/release/midc_playground.wasm');
}

// Every recipe, the quick start first; what recipes use comes along under its own path.
const recipes = join(here, '..', 'examples', 'recipes');
const example = (path) => ({ name: basename(path, '.curriculum'), text: readFileSync(path, 'utf8') });
const curricula = (directory) => readdirSync(directory).filter((f) => f.endsWith('.curriculum')).sort().map((f) => join(directory, f));
const examples = [example(join(here, 'page', 'first.curriculum')), ...curricula(recipes).map(example)];
const shared = {};
const collect = (directory, prefix) => {
  for (const name of readdirSync(directory)) {
    const path = join(directory, name);
    if (statSync(path).isDirectory()) collect(path, `${prefix}${name}/`);
    else if (name.endsWith('.curriculum')) shared[prefix + name] = readFileSync(path, 'utf8');
  }
};
collect(recipes, '');

const json = JSON.stringify({ examples, shared }).replace(/</g, '\\u003c');
const parts = { STYLE: read('page', 'style.css'), WASM: readFileSync(wasm).toString('base64'), EXAMPLES: json, SCRIPT: read('page', 'page.js') };
const page = read('page', 'index.html').replace(/\/\*(STYLE|WASM|EXAMPLES|SCRIPT)\*\//g, (_, part) => parts[part]);
const out = option('out') ?? join(here, 'dist', 'index.html');
mkdirSync(dirname(out), { recursive: true });
writeFileSync(out, page);
console.log(`${out}: ${(page.length / 1e6).toFixed(1)} MB`);
