/** Writes to the store at argv[2] until killed, and says on stdout what has been acknowledged: `revision key value|-`. */
import { writeSync } from 'node:fs';
import { isWeftError } from '../../base/errors.ts';
import { openSqliteStore } from '../sqlite-store.ts';
import type { Store } from '../store.ts';

const [path, round] = process.argv.slice(2) as [string, string];
let store: Store;
try {
  store = openSqliteStore({ path, historyLimit: 200 });
} catch (error) {
  writeSync(1, `${isWeftError(error) ? error.code : String(error)}\n`);
  process.exit(1);
}

// Batches, so that group commit is cut in the middle; each key's writes are in order, acknowledged in order.
for (let i = 0; ; i++) {
  const width = 1 + (i % 7);
  const lines = await Promise.all(
    Array.from({ length: width }, async (_, lane) => {
      const key = `/lane/${lane}/${i % 5}`;
      const value = `${round}.${i}.${lane}`;
      const current = await store.get(key);
      if (current && i % 11 === 3) {
        const gone = await store.delete(key, current.revision);
        return gone.ok ? `${gone.revision} ${key} -` : '';
      }
      const result = current
        ? await store.update(key, value, current.revision)
        : await store.create(key, value);
      return result.ok ? `${result.revision} ${key} ${value}` : '';
    }),
  );
  writeSync(1, `${lines.filter(Boolean).join('\n')}\n`);
}
