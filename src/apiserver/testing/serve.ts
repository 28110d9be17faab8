/** An API server on the folder argv[2] and, if given, the descriptor argv[3]; says where it listens on stdout. */
import { writeSync } from 'node:fs';
import { silentLogger } from '../../base/log.ts';
import { startApiServer } from '../server.ts';

const [dataDir, fd] = process.argv.slice(2) as [string, string | undefined];
const loopback = { host: '127.0.0.1', port: 0 };
const server = await startApiServer({
  dataDir,
  listen: fd ? [{ fd: Number(fd) }, loopback] : [loopback],
  advertise: [],
  logger: silentLogger,
});
const [url, second = url] = server.urls;
writeSync(1, `${JSON.stringify({ url, second, ca: server.ca })}\n`);
