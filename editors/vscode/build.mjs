// Bundles the extension into dist/: desktop, browser, and the server for the browser, whose
// WebAssembly is built first (needs `rustup target add wasm32-unknown-unknown`).
//   node build.mjs                 builds the WebAssembly with cargo
//   node build.mjs --wasm=FILE     takes it from FILE
//   node build.mjs --no-wasm       leaves the browser out
import { execFileSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as esbuild from 'esbuild';

const here = dirname(fileURLToPath(import.meta.url));
const playground = join(here, '..', '..', 'playground');
const given = process.argv.find((a) => a.startsWith('--wasm='))?.slice('--wasm='.length);
const target = join(playground, 'target');
const wasm = given ?? join(target, 'wasm32-unknown-unknown', 'release', 'midc_playground.wasm');
const common = { bundle: true, minify: true, legalComments: 'none', external: ['vscode'], absWorkingDir: here, logLevel: 'warning' };

if (!process.argv.includes('--no-wasm')) {
  if (!given) {
    const command = ['build', '--release', '--target', 'wasm32-unknown-unknown', '--target-dir', target];
    execFileSync('cargo', command, { cwd: playground, stdio: 'inherit' });
  }
  await esbuild.build({
    ...common,
    entryPoints: ['src/server.worker.js'],
    outfile: 'dist/server.js',
    format: 'iife',
    loader: { '.wasm': 'binary' },
    alias: { 'midc.wasm': wasm },
  });
}
await esbuild.build({ ...common, entryPoints: ['src/desktop.js'], outfile: 'dist/desktop.js', platform: 'node', format: 'cjs' });
await esbuild.build({ ...common, entryPoints: ['src/browser.js'], outfile: 'dist/browser.js', platform: 'browser', format: 'cjs', mainFields: ['browser', 'module', 'main'] });
