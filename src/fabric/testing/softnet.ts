/** What the machine itself does to packets, all namespaces together. */
import { readFileSync } from 'node:fs';

/**
 * Packets dropped because a CPU's queue of received ones was full (net.core.netdev_max_backlog): what any flood on this
 * machine does to everybody's packets. Source: /proc/net/softnet_stat, second column (net/core/net-procfs.c)
 */
export function softnetDrops(): number {
  const rows = readFileSync('/proc/net/softnet_stat', 'latin1').trim().split('\n');
  return rows.reduce((sum, row) => sum + Number.parseInt(row.split(' ')[1]!, 16), 0);
}
