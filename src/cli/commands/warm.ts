/**
 * `weft warm`, the last step of set-up: load everything once, so that Node's compile cache holds it. Without the cache each
 * process compiles TypeScript itself, which costs it 35 MB and some hundred milliseconds at its start.
 */
import { readdirSync } from 'node:fs';
import { flushCompileCache } from 'node:module';
import path from 'node:path';
import { openKernel } from '../../kernel/kernel.ts';

export async function warm(): Promise<void> {
  for (const file of readdirSync(import.meta.dirname)) {
    if (file.endsWith('.ts') && !file.endsWith('.test.ts'))
      await import(path.join(import.meta.dirname, file));
  }
  await import('../../agent/main.ts');
  await import('../../lab/daemon.ts');
  await import('../../lab/agnhost/server.ts');
  // What is imported only when needed: X.509, YAML, TLS for probes.
  await Promise.all([import('../../apiserver/x509.ts'), import('yaml'), import('node:tls')]);
  // The kernel's thread is a program of its own.
  const kernel = await openKernel();
  await kernel.netnsInfo('/proc/self/ns/net');
  await kernel[Symbol.asyncDispose]();
  flushCompileCache();
}
