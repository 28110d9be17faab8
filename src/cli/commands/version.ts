import { readFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';

export function versionText(): string {
  const file = path.join(import.meta.dirname, '../../../package.json');
  const { version: number } = JSON.parse(readFileSync(file, 'utf8')) as { version: string };
  return `weft ${number} · node ${process.versions.node} · ${os.type()} ${os.release()} ${os.arch()}`;
}
