package redis_test

import (
	"fmt"
	"testing"

	"github.com/longline-push/longline/broker/brokertest"
	"github.com/longline-push/longline/broker/redis"
	"github.com/longline-push/longline/broker/redis/redistest"
)

func TestSubscriptions(t *testing.T) {
	s := redistest.Start(t)
	brokertest.TestSubscriptions(t, fresh(s.URL()))
}

func TestSubscriptionsInACluster(t *testing.T) {
	c := redistest.StartCluster(t)
	brokertest.TestSubscriptions(t, fresh(c.URL()))
}

// fresh makes brokers that find nothing of each other. They have no janitor: what
// it enters again after a failover, as after a first start, may become due twice.
func fresh(url string) func(t *testing.T) brokertest.Durable {
	return func(t *testing.T) brokertest.Durable {
		t.Helper()
		return mustOpen(t, fmt.Sprintf("%s?prefix=s%d:", url, harnesses.Add(1)), redis.Options{TrimEvery: -1})
	}
}
