import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';

interface Layers {
  folders: Record<string, { imports: string[] }>;
  modules: Record<string, string[]>;
}

const root = import.meta.dirname;
const layers: Layers = JSON.parse(readFileSync(path.join(root, 'layers.json'), 'utf8'));
const isTest = (file: string): boolean => /\.test\.ts$|\.bench\.ts$|\/testing\/|^testing\//.test(file);

const files = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter(
  (file) => file.endsWith('.ts') && file.includes(path.sep),
);

/** Every module a file names in an import, an export-from or a dynamic import. */
function importsOf(file: string): string[] {
  const text = readFileSync(path.join(root, file), 'utf8');
  const found: string[] = [];
  for (const match of text.matchAll(
    /(?:^\s*(?:import|export)\s[^'"`;]*?from\s*|\bimport\s*\(?\s*)['"]([^'"]+)['"]/gm,
  )) {
    found.push(match[1]!);
  }
  return found;
}

test('every folder under src/ has its place in layers.json', () => {
  const folders = readdirSync(root, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  for (const folder of folders)
    assert.ok(layers.folders[folder.name], `src/${folder.name} is not in layers.json`);
});

test('imports go only where layers.json allows', () => {
  const wrong: string[] = [];
  for (const file of files) {
    if (isTest(file)) continue; // a test may bring in whatever it compares with
    const folder = file.split(path.sep)[0]!;
    for (const name of importsOf(file)) {
      if (name.startsWith('.')) {
        const target = path.relative(root, path.resolve(root, path.dirname(file), name)).split(path.sep)[0]!;
        if (target !== folder && !layers.folders[folder]?.imports.includes(target)) {
          wrong.push(`${file}: ${folder} may not import ${target} (${name})`);
        }
      } else if (layers.modules[name] && !layers.modules[name].includes(folder)) {
        wrong.push(`${file}: only ${layers.modules[name].join(', ')} may use ${name}`);
      }
    }
  }
  assert.deepEqual(wrong, []);
});

test('folders do not import each other in a circle', () => {
  const visiting = new Set<string>();
  const done = new Set<string>();
  const visit = (folder: string, way: string[]): void => {
    if (done.has(folder)) return;
    assert.ok(!visiting.has(folder), `circle: ${[...way, folder].join(' → ')}`);
    visiting.add(folder);
    for (const next of layers.folders[folder]?.imports ?? []) visit(next, [...way, folder]);
    visiting.delete(folder);
    done.add(folder);
  };
  for (const folder of Object.keys(layers.folders)) visit(folder, []);
});
