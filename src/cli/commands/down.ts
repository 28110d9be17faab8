/** `weft down`: remove, look, and only then say that it is gone. */
import { WeftError } from '../../base/errors.ts';
import { destroyLab, listLabs, type Traces } from '../../lab/lab.ts';

export async function down(options: { lab: string; all?: boolean }): Promise<void> {
  const names = options.all ? listLabs() : [options.lab];
  if (names.length === 0) process.stdout.write('there is no lab\n');
  for (const name of names) {
    const { found, left, gone } = await destroyLab(name, (text) => process.stdout.write(`  ${text}\n`));
    if (!gone) {
      throw new WeftError('WEFT_LAB_REMAINS', `of lab ${name} there remain ${describe(left)}`, {
        details: { left },
      });
    }
    const was = describe(found);
    process.stdout.write(
      was === 'nothing'
        ? `lab ${name}: there was nothing of it\n`
        : `lab ${name} is gone: looked for and found nothing of what there was (${was})\n`,
    );
  }
}

function describe({ processes, namespaces, mounts, files }: Traces): string {
  const count = (n: number, what: string): string[] => (n > 0 ? [`${n} ${what}${n === 1 ? '' : 's'}`] : []);
  return (
    [
      ...(processes.length > 0
        ? [`${processes.length} ${processes.length === 1 ? 'process' : 'processes'}`]
        : []),
      ...count(namespaces.length, 'network namespace'),
      ...count(mounts.length, 'mount'),
      ...count(files.length, 'folder'),
    ].join(', ') || 'nothing'
  );
}
