/** What a table must say about where and when it was made. */
import { execFileSync } from 'node:child_process';
import os from 'node:os';

export function machineFacts(): string[] {
  const cpus = os.cpus();
  const model = cpus[0]?.model.replace(/\s+/g, ' ').trim() ?? 'unknown processor';
  const [load] = os.loadavg();
  return [
    `${new Date().toISOString().slice(0, 16).replace('T', ' ')} UTC, Linux ${os.release()}, ${cpus.length} × ${model}, ` +
      `${Math.round(os.totalmem() / 2 ** 30)} GiB, load at the start ${load!.toFixed(2)}`,
    `Weft at ${commit()}, Node ${process.versions.node}`,
  ];
}

/** `containernetworking-plugins 1.1.1+ds1-3+b5`: as Debian knows it. */
export function packageVersion(name: string): string {
  try {
    const version = execFileSync('dpkg-query', ['--show', name], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    return version.trim().replace('\t', ' ');
  } catch {
    return `${name} (not a Debian package here)`;
  }
}

function commit(): string {
  try {
    const git = (...args: string[]): string =>
      execFileSync('git', ['-C', import.meta.dirname, ...args], {
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'ignore'],
      }).trim();
    return (
      git('rev-parse', '--short=12', 'HEAD') + (git('status', '--porcelain', '-uno') ? ' with changes' : '')
    );
  } catch {
    return 'an unknown commit';
  }
}
