// One process that makes an RPC and a Torch matrix product and exits with 0: gRPC's and Torch's libraries
// (both carry a Protobuf, among others) must stand each other, up to the destructors at exit.
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "quire/v1/codec.grpc.pb.h"
#include "tests/services/worker/engine/torch_product.h"

namespace quire::worker {
namespace {

// grpc.health.v1.Health/Check of the server as a whole, by hand: an empty request; the answer's field 1 is
// the status.
std::string CheckHealth(const std::shared_ptr<grpc::Channel>& channel) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
  grpc::CompletionQueue queue;
  grpc::Slice nothing;
  const grpc::ByteBuffer request(&nothing, 1);
  grpc::ByteBuffer response;
  grpc::Status status;
  auto call = stub.PrepareUnaryCall(&context, "/grpc.health.v1.Health/Check", request, &queue);
  call->StartCall();
  call->Finish(&response, &status, nullptr);
  void* tag;
  bool ok = false;
  EXPECT_TRUE(queue.Next(&tag, &ok) && ok);
  EXPECT_TRUE(status.ok()) << status.error_message();
  std::vector<grpc::Slice> slices;
  EXPECT_TRUE(response.Dump(&slices).ok());
  std::string bytes;
  for (const grpc::Slice& slice : slices)
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  return bytes;
}

TEST(RpcAndTorch, LiveInOneProcess) {
  EXPECT_EQ(SumOfTorchProduct(64), 64.0 * 64 * 64);
  grpc::EnableDefaultHealthCheckService(true);
  int port = 0;
  v1::Codec::Service service;  // answers UNIMPLEMENTED to all
  grpc::ServerBuilder builder;
  builder.RegisterService(&service);
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  ASSERT_NE(server, nullptr);
  const std::string address = "127.0.0.1:" + std::to_string(port);
  const auto channel = grpc::CreateChannel(address, grpc::InsecureChannelCredentials());
  EXPECT_EQ(CheckHealth(channel), "\x08\x01");  // SERVING
  grpc::ClientContext context;
  v1::DescribeRequest request;
  v1::DescribeResponse response;
  EXPECT_EQ(v1::Codec::NewStub(channel)->Describe(&context, request, &response).error_code(),
            grpc::UNIMPLEMENTED);
  EXPECT_EQ(SumOfTorchProduct(200), 200.0 * 200 * 200);
  server->Shutdown();
}

}  // namespace
}  // namespace quire::worker
