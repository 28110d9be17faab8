/** `weft apiserver`: the API and, beside it in one process, the network's controllers, which speak to it like anyone else. */
import path from 'node:path';
import { ADMIN, issueClient, writeKubeconfig } from '../../apiserver/pki.ts';
import { startApiServer } from '../../apiserver/server.ts';
import { systemClock } from '../../base/clock.ts';
import { WeftError } from '../../base/errors.ts';
import { createLogger } from '../../base/log.ts';
import { startControllers } from '../../controllers/main.ts';
import { apiTables } from '../../informers/api-tables.ts';
import { HttpApiClient } from '../../informers/http-client.ts';

export interface ApiServerFlags {
  dataDir: string;
  listen: string[];
  listenFd: string[];
  advertise: string[];
  clusterCidr: string[];
  adminKubeconfig?: string;
  server?: string;
}

const DEFAULT_CLUSTER_CIDRS = ['10.244.0.0/16', 'fd00:10:244::/48'];

export async function apiserver(flags: ApiServerFlags): Promise<void> {
  const logger = createLogger('apiserver');
  const listen = [...flags.listenFd.map(inherited), ...flags.listen.map(address)];
  const server = await startApiServer({
    dataDir: flags.dataDir,
    listen: listen.length > 0 ? listen : [{ host: '127.0.0.1', port: 6443 }],
    advertise: flags.advertise,
    logger,
  });
  const admin = await issueClient(server.pkiDir, ADMIN);
  writeKubeconfig(flags.adminKubeconfig ?? path.join(flags.dataDir, 'admin.kubeconfig'), {
    server: flags.server ?? server.url,
    ca: server.ca,
    ...admin,
  });
  const own = await issueClient(server.pkiDir, {
    user: 'system:weft-controllers',
    groups: ['system:masters'],
  });
  const client = new HttpApiClient({
    server: server.url,
    ca: server.ca,
    cert: own.cert,
    key: own.key,
    namespace: 'default',
  });
  const clusterCIDRs = flags.clusterCidr.length > 0 ? flags.clusterCidr : DEFAULT_CLUSTER_CIDRS;
  const tables = apiTables({ client, clock: systemClock, logger });
  const controllers = await startControllers({
    client,
    tables,
    config: { clusterCIDRs },
    clock: systemClock,
    logger,
  });
  logger.info({ url: server.url, clusterCIDRs }, 'API server and controllers run');

  await new Promise<void>((resolve) => {
    process.once('SIGTERM', () => resolve());
    process.once('SIGINT', () => resolve());
  });
  await controllers.close();
  await server.close();
}

function inherited(text: string): { fd: number } {
  const fd = Number(text);
  if (!Number.isInteger(fd) || fd < 3)
    throw new WeftError('WEFT_BAD_CONFIG', `--listen-fd ${text}: not an inherited descriptor`);
  return { fd };
}

/** `address:port` or `[address]:port`. */
function address(text: string): { host: string; port: number } {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (!match || port > 65_535) throw new WeftError('WEFT_BAD_CONFIG', `--listen ${text}: not address:port`);
  return { host: match[1] ?? match[2]!, port };
}
