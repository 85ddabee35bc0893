/* New UDP flows by the thousand: burst SOURCES DESTINATION PORT COUNT RATE
 *
 * Flow n is from line n % lines of the file SOURCES, and from a source port that no other flow of that line has.
 * One packet each, RATE a second, 0: as fast as it goes. Prints how many were sent, and in how many microseconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define AT_ONCE 32
#define FIRST_PORT 1024
#define MOST_SOURCES 65536

struct packet {
	struct iphdr ip;
	struct udphdr udp;
	char payload[4];
};

static unsigned sources[MOST_SOURCES];
static struct packet packets[AT_ONCE];
static struct iovec parts[AT_ONCE];
static struct mmsghdr messages[AT_ONCE];

static long long now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

static unsigned read_sources(const char *path)
{
	char line[64];
	unsigned count = 0;
	FILE *file = fopen(path, "r");

	if (!file)
		return 0;
	while (count < MOST_SOURCES && fgets(line, sizeof(line), file)) {
		line[strcspn(line, "\n")] = 0;
		sources[count++] = inet_addr(line);
	}
	fclose(file);
	return count;
}

int main(int argc, char **argv)
{
	struct sockaddr_in to = {.sin_family = AF_INET};
	unsigned lines, port, batch, i;
	long count, rate, sent = 0;
	long long began;
	int opened;

	if (argc != 6 || !(lines = read_sources(argv[1]))) {
		fprintf(stderr, "usage: burst SOURCES DESTINATION PORT COUNT RATE\n");
		return 2;
	}
	to.sin_addr.s_addr = inet_addr(argv[2]);
	port = atoi(argv[3]);
	count = atol(argv[4]);
	rate = atol(argv[5]);
	if (count / lines >= 65536 - FIRST_PORT) {
		fprintf(stderr, "burst: %u sources are too few for %ld flows\n", lines, count);
		return 2;
	}
	opened = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
	if (opened < 0) {
		perror("burst: socket");
		return 1;
	}
	for (i = 0; i < AT_ONCE; i++) {
		struct packet *made = &packets[i];

		made->ip.version = 4;
		made->ip.ihl = 5;
		made->ip.ttl = 64;
		made->ip.protocol = IPPROTO_UDP;
		made->ip.tot_len = htons(sizeof(*made));
		made->ip.daddr = to.sin_addr.s_addr;
		made->udp.dest = htons(port);
		made->udp.len = htons(sizeof(made->udp) + sizeof(made->payload));
		parts[i] = (struct iovec){made, sizeof(*made)};
		messages[i].msg_hdr.msg_iov = &parts[i];
		messages[i].msg_hdr.msg_iovlen = 1;
		messages[i].msg_hdr.msg_name = &to;
		messages[i].msg_hdr.msg_namelen = sizeof(to);
	}
	began = now_us();
	while (sent < count) {
		long due = rate ? (now_us() - began) * rate / 1000000 - sent : AT_ONCE;

		if (due <= 0) {
			nanosleep(&(struct timespec){0, 200000}, NULL);
			continue;
		}
		batch = due < AT_ONCE ? due : AT_ONCE;
		if (batch > count - sent)
			batch = count - sent;
		for (i = 0; i < batch; i++) {
			packets[i].ip.saddr = sources[(sent + i) % lines];
			packets[i].udp.source = htons(FIRST_PORT + (sent + i) / lines);
		}
		for (i = 0; i < batch;) {
			int done = sendmmsg(opened, messages + i, batch - i, 0);

			if (done < 0) {
				perror("burst: sendmmsg");
				return 1;
			}
			i += done;
		}
		sent += batch;
	}
	printf("%ld %lld\n", sent, now_us() - began);
	return 0;
}
